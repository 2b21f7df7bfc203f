"""In a browser: the address that a model's files are fetched from.

A name means what it means elsewhere, with two additions: an address, whole or relative to the page,
and the Hub's files without huggingface_hub, which reads its mirror from ``HF_ENDPOINT`` as well.
"""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import quote, urljoin, urlsplit

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.models.presets import EMBEDDED, hub_id, is_possible
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.sources import HUB_SCHEME, hub_page

HUB = "https://huggingface.co"
_WHOLE = ("http://", "https://")
_REPOSITORY = re.compile(r"((?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_FILE = re.compile(r"[^/]+\.(?:safetensors|json|txt)")


def address_of(preset: object) -> str | None:
    """Where a model's files are fetched from; None for what is no address, and outside a browser.

    Addresses are ``https://...`` (a directory, one of its files, or a page of the Hub), paths
    relative to the page, ``hf://owner/name[@revision]``, ``owner/name`` and the names of presets
    that the Hub has. A directory in Python's own file system goes first.

    Raises ``PresetError`` for a malformed address, and for a relative path where nothing says what
    it is relative to.
    """
    if sys.platform != "emscripten" or not isinstance(preset, str):
        return None
    text = preset.strip()
    if text in ("", EMBEDDED) or not is_possible(text):
        return None
    if os.path.exists(os.path.expanduser(text)):
        return None
    if (page := hub_page(text)) is not None:
        name, _, revision = page.partition("@")
        return _of_repository(name, revision)
    if text.startswith(_WHOLE):
        _check(text)
        return _directory(text)
    if _is_relative(text):
        return _absolute(text)
    repository = hub_id(text) or text.removeprefix(HUB_SCHEME)
    named = _REPOSITORY.fullmatch(repository)
    if named is None or not (text.startswith(HUB_SCHEME) or "/" in repository):
        return None
    return _of_repository(named[1], named[2])


def _check(address: str) -> None:
    try:
        if urlsplit(address).netloc:
            return
    except ValueError:  # brackets that enclose no IPv6 address
        pass
    raise PresetError(f"{shown(address)} is no address; one looks like https://example.org/model/")


def endpoint() -> str:
    """The Hub, or the mirror that the environment variable HF_ENDPOINT names.

    Raises ``PresetError`` for a value that is no address.
    """
    given = os.environ.get("HF_ENDPOINT", "").strip()
    if given and not given.startswith(_WHOLE):
        raise PresetError(
            f"HF_ENDPOINT is {shown(given)}: give the address of a mirror, such as {HUB}"
        )
    _check(given or HUB)
    return (given or HUB).rstrip("/")


def _of_repository(name: str, revision: str | None) -> str:
    return f"{endpoint()}/{name}/resolve/{quote(revision or 'main', safe='')}/"


def _directory(address: str) -> str:
    """The directory that an address, perhaps of a file in it, means."""
    parts = urlsplit(address)
    above, _, last = parts.path.rpartition("/")
    path = above if _FILE.fullmatch(last) else parts.path
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}/"


def _is_relative(text: str) -> bool:
    """Whether this is a path, and cannot be a repository's name."""
    return "://" not in text and (
        text.startswith((".", "/")) or text.endswith("/") or text.partition("@")[0].count("/") > 1
    )


def _absolute(path: str) -> str | None:
    """The address of a path relative to the page; None where no page is (Node)."""
    import js

    document, location = (getattr(js, name, None) for name in ("document", "location"))
    if location is None:
        return None
    if document is None and not path.startswith("/"):
        raise PresetError(
            f"{shown(path)} is relative to a page, and Python runs in a worker here, which has "
            "none: pass the whole address (https://...), or the path from the host's root (/...)"
        )
    base = str(location.origin if document is None else document.baseURI)
    try:
        address = urljoin(base, path)
    except ValueError:
        address = ""
    if not address.startswith(_WHOLE):
        raise PresetError(
            f"{shown(path)} is relative to {shown(base)}, which has no files: pass the whole "
            "address (https://...)"
        )
    return _directory(address)
