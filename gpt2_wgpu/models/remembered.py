"""Facts about a machine that later processes need not find out again: a JSON object a file.

Files are in the user's cache directory; in a browser, where there is none, entries are responses in
the origin's Cache Storage. Where nothing can be written, nothing is remembered.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.writer import AtomicFile

_CACHE = "self-test"  # of the Cache Storage
_MOST = 64  # entries of a file; the oldest go


def directory() -> Path | None:
    """The package's folder in the user's cache directory; None where there is none."""
    if sys.platform == "emscripten":
        return None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return Path(base, "gpt2-wgpu") if os.path.isabs(base) else None


def read(file: str) -> dict[str, Any]:
    """What earlier processes wrote. A file that cannot be read or understood is empty."""
    folder = directory()
    if folder is not None:
        with suppress(OSError, ValueError):
            content = strict_json.parse(small_files.read(folder / file))
            if isinstance(content, dict):
                return content
    return {}


def write(file: str, key: str, value: Any) -> None:
    """Add one entry, or replace it."""
    folder = directory()
    if folder is None:
        return
    with suppress(OSError, WeightsError):
        folder.mkdir(parents=True, exist_ok=True)
        entries = read(file)
        entries.pop(key, None)
        kept = list(entries.items())[1 - _MOST :]
        with AtomicFile(folder / file) as target:
            target.write(json.dumps(dict([*kept, (key, value)]), indent=1).encode())


async def seen_by_browser(file: str, key: str) -> bool:
    """Whether :func:`note_in_browser` was called with this in an earlier session."""
    if sys.platform != "emscripten":
        return False
    with suppress(Exception):  # no Cache Storage, or it is blocked: nothing was noted
        from js import caches

        cache = await caches.open(_CACHE)
        return bool(await cache.match(_address(file, key)))
    return False


async def note_in_browser(file: str, key: str) -> None:
    """Remember ``key`` for later sessions of this browser."""
    if sys.platform != "emscripten":
        return
    with suppress(Exception):  # storage is full or blocked: it is found out again
        from js import Response, caches

        cache = await caches.open(_CACHE)
        await cache.put(_address(file, key), Response.new("1"))


def _address(file: str, key: str) -> str:
    import js

    return f"/{_CACHE}/{file}?{js.encodeURIComponent(key)}"
