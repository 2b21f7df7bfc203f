"""URLs of a model's files in a browser.

Names are those of other platforms, and also URLs, absolute or relative to the page. Hub files are
fetched without huggingface_hub; ``HF_ENDPOINT`` sets a mirror.
"""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import quote, urljoin, urlsplit

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.presets import EMBEDDED, hub_id, is_possible
from gpt2_wgpu.weights.sources import HUB_SCHEME, hub_page

HUB = "https://huggingface.co"
_WHOLE = ("http://", "https://")
_REPOSITORY = re.compile(r"((?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_FILE = re.compile(r"[^/]+\.(?:safetensors|json|txt)")


def address_of(preset: object) -> str | None:
    """Return the URL of a model's files; None for other names, and outside of browsers.

    Supported are ``https://...`` (a directory, one of its files, or a page of the Hub), paths
    relative to the page, ``hf://owner/name[@revision]``, ``owner/name`` and names of presets on
    the Hub. A directory in Python's file system takes precedence.

    Raises:
        PresetError: a malformed URL, or a relative path without a base.
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
    except ValueError:  # invalid IPv6 address in brackets
        pass
    raise PresetError(
        f"{shown(address)} is not a valid address; an example is https://example.org/model/"
    )


def endpoint() -> str:
    """Return the URL of the Hub, or of the mirror in the environment variable HF_ENDPOINT.

    Raises:
        PresetError: the variable is not a URL.
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
    """Return the directory of an address, which may be that of a file in it."""
    parts = urlsplit(address)
    above, _, last = parts.path.rpartition("/")
    path = above if _FILE.fullmatch(last) else parts.path
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}/"


def _is_relative(text: str) -> bool:
    """Return whether this is a path and not a repository's name."""
    return "://" not in text and (
        text.startswith((".", "/")) or text.endswith("/") or text.partition("@")[0].count("/") > 1
    )


def _absolute(path: str) -> str | None:
    """Return the URL of a path relative to the page; None without a page (Node)."""
    import js

    document, location = (getattr(js, name, None) for name in ("document", "location"))
    if location is None:
        return None
    if document is None and not path.startswith("/"):
        raise PresetError(
            f"{shown(path)} is relative to a page, but Python runs in a worker without one: pass "
            "the whole address (https://...), or the path from the host's root (/...)"
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
