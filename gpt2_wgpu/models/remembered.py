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

_CACHE = "machine-facts"  # of the Cache Storage
_MAX_ENTRIES = 64  # per file, in browsers altogether; the oldest are removed


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


async def recall(file: str, key: str) -> Any:
    """Return the value of :func:`remember`, also of an earlier session; None if there is none."""
    if sys.platform != "emscripten":
        return read(file).get(key)
    with suppress(Exception):  # no Cache Storage, it is blocked, or the entry is malformed
        from js import caches

        cache = await caches.open(_CACHE)
        found = await cache.match(_address(file, key))
        if found is not None:
            return strict_json.parse((await found.text()).encode())
    return None


async def remember(file: str, key: str, value: Any) -> None:
    """Add or replace an entry, for this session and later ones."""
    if sys.platform != "emscripten":
        write(file, key, value)
        return
    with suppress(Exception):  # storage is full or blocked
        from js import Response, caches

        cache = await caches.open(_CACHE)
        address = _address(file, key)
        await cache.delete(address)  # the newest comes last
        await cache.put(address, Response.new(json.dumps(value)))
        for oldest in list(await cache.keys())[:-_MAX_ENTRIES]:
            await cache.delete(oldest)


def user_agent() -> str:
    """Return the browser's name and version, which often contains the driver; else ""."""
    if sys.platform != "emscripten":
        return ""
    import js

    return getattr(js.navigator, "userAgent", "")  # Node may have none


def _address(file: str, key: str) -> str:
    import js

    return f"/{_CACHE}/{file}?{js.encodeURIComponent(key)}"
