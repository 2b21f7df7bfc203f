"""Persistent cache of facts about a machine: one JSON object per file.

Files are in the user's cache directory; in a browser, entries are responses in the origin's Cache
Storage. Without write access nothing is cached.
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
_MAX_ENTRIES = 64  # per file; the oldest are removed


def directory() -> Path | None:
    """Return the package's folder in the user's cache directory; None if there is none."""
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
    """Return the entries of a file; empty if it cannot be read or parsed."""
    folder = directory()
    if folder is not None:
        with suppress(OSError, ValueError):
            content = strict_json.parse(small_files.read(folder / file))
            if isinstance(content, dict):
                return content
    return {}


def write(file: str, key: str, value: Any) -> None:
    """Add or replace an entry."""
    folder = directory()
    if folder is None:
        return
    with suppress(OSError, WeightsError):
        folder.mkdir(parents=True, exist_ok=True)
        entries = read(file)
        entries.pop(key, None)
        kept = list(entries.items())[1 - _MAX_ENTRIES :]
        with AtomicFile(folder / file) as target:
            target.write(json.dumps(dict([*kept, (key, value)]), indent=1).encode())


async def seen_by_browser(file: str, key: str) -> bool:
    """Return whether :func:`note_in_browser` was called with this key in an earlier session."""
    if sys.platform != "emscripten":
        return False
    with suppress(Exception):  # no Cache Storage, or it is blocked
        from js import caches

        cache = await caches.open(_CACHE)
        return bool(await cache.match(_address(file, key)))
    return False


async def note_in_browser(file: str, key: str) -> None:
    """Store ``key`` for later sessions of this browser."""
    if sys.platform != "emscripten":
        return
    with suppress(Exception):  # storage is full or blocked
        from js import Response, caches

        cache = await caches.open(_CACHE)
        await cache.put(_address(file, key), Response.new("1"))


def _address(file: str, key: str) -> str:
    import js

    return f"/{_CACHE}/{file}?{js.encodeURIComponent(key)}"
