"""Resolution of a model name to a checkpoint directory: local, or from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpt2_wgpu.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BESIDE_WEIGHTS,
    TOKENIZER_PARTS,
    WHOLE_TOKENIZER,
)
from gpt2_wgpu.errors import PresetError, WeightsError
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.validation import optional_function
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, shard_names
from gpt2_wgpu.weights.hub import UnreachableError, download, download_adapter, first_line

HUB_SCHEME = "hf://"
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Pages of a repository, its files and discussions; as in web/sources.js.
_HUB_PAGE = re.compile(
    r"/((?!\.)[\w.-]+(?:/(?!\.)[\w.-]+)?)"
    r"(?:/discussions(?:/.*)?|/(?:tree|blob|resolve|raw|commits?)(?:/([^/]+).*)?)?/?",
    re.ASCII,
)
_OTHER_PAGES = ("datasets", "spaces", "models", "docs", "collections", "papers", "settings")
#: Files fetched from a repository, besides the shards of an index.
NEEDED_FILES = (
    *BESIDE_WEIGHTS,
    SINGLE_FILE,
    INDEX_FILE,
)
_ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_HUB_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[^\s~^:?*\[\\@]{1,255}")  # a branch, tag or commit, by git's rules


def resolve_directory(
    name_or_path: str | os.PathLike[str],
    on_progress: Callable[[str], None] | None = None,
    weights: bool = True,
) -> Path:
    """Return the directory of a checkpoint, downloading it if it is on the Hub.

    An existing directory is returned unchanged. ``hf://owner/name``, ``owner/name`` and either
    with ``@revision`` are repositories on the Hub, which need the extra ``hub``. A complete copy
    in the Hub's local cache is used without a request, so that a cached model works offline; to
    get a newer version pass ``@<commit>`` or update the cache with ``hf download``.

    Args:
        name_or_path: the directory or the repository.
        on_progress: called with a line of text before a download. Progress bars are
            huggingface_hub's own, on a terminal only (HF_HUB_DISABLE_PROGRESS_BARS).
        weights: False: without the weights, which are not downloaded.

    Returns:
        The directory.

    Raises:
        PresetError: the name is neither, huggingface_hub is not installed, the repository does
            not exist, is gated or has no safetensors, or it is not cached and cannot be fetched.
    """
    optional_function("on_progress", on_progress)
    typed = os.fspath(name_or_path)
    if os.path.isdir(typed):
        return Path(typed)
    name = _parse(typed)
    cached, cache_lacks = _from_cache(name, NEEDED_FILES if weights else BESIDE_WEIGHTS)
    if cached is not None and not cache_lacks:
        return cached
    if on_progress is not None:
        on_progress(f"fetching {name.repository} from the Hugging Face Hub")
    try:
        directory = download(
            name.repository, name.revision, explicit=name.explicit, weights=weights
        )
    except UnreachableError:
        raise PresetError(_unreachable(name, cache_lacks)) from None
    if lacking := missing_files(directory, weights):
        raise PresetError(_unreachable(name, lacking))
    return directory


def resolve_adapter(name: str | os.PathLike[str]) -> Path:
    """Return the directory of a LoRA adapter, downloading it if it is on the Hub.

    A path is returned unchanged. Hub ids, with ``owner/``, and the use of the Hub's local cache
    are those of `resolve_directory`.

    Raises:
        PresetError: as `resolve_directory`, for a repository without an adapter, too.
    """
    typed = os.fspath(name)
    if not isinstance(name, str) or os.path.isdir(typed):
        return Path(typed)
    page, with_owner = hub_page(typed), "/" in typed and not typed.startswith(".")
    is_id = with_owner and _HUB_ID.fullmatch(typed.partition("@")[0]) is not None
    if not (page or is_id or typed.startswith(HUB_SCHEME)):
        if "://" in typed:
            raise PresetError(
                f"{shown(typed)}: only {HUB_SCHEME} addresses and pages of the Hub are supported"
            )
        return Path(typed)
    asked = _parse(HUB_SCHEME + page if page else typed)
    cached, lacks = _from_cache(asked, _ADAPTER_FILES)
    if cached is not None and not lacks:
        return cached
    try:
        return download_adapter(asked.repository, asked.revision, explicit=asked.explicit)
    except UnreachableError:
        raise PresetError(_unreachable(asked, lacks)) from None


@dataclass(frozen=True)
class _HubName:
    """A parsed hub id."""

    repository: str
    revision: str | None
    explicit: bool  # written with hf://, so not a directory

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def hub_page(address: str) -> str | None:
    """Return ``owner/name[@revision]`` for the URL of a repository or its files, else None.

    URLs may be those of the Hub, with or without ``https://``, or of the mirror in
    ``HF_ENDPOINT``.

    Raises:
        PresetError: the URL is a page of the Hub, but not of a model.
    """
    address = address.strip()
    try:
        mirror = urlsplit(os.environ.get("HF_ENDPOINT", "").strip().rstrip("/"))
        if address.partition("/")[0].lower() in (*HUB_HOSTS, mirror.netloc.lower() or None):
            address = f"https://{address}"  # browsers hide the scheme
        parts = urlsplit(address)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    host, path = parts.netloc.lower(), parts.path
    if host not in HUB_HOSTS:
        if not host or host != mirror.netloc.lower() or not path.startswith(f"{mirror.path}/"):
            return None
        path = path.removeprefix(mirror.path)
    page = _HUB_PAGE.fullmatch(path)
    if page is None or page[1].partition("/")[0] in _OTHER_PAGES:
        if host not in HUB_HOSTS:
            return None  # a mirror may have other directories
        raise PresetError(
            f"{shown(address)} is not the page of a model on the Hub (example: "
            "https://huggingface.co/owner/name)"
        )
    revision = unquote(page[2] or "")
    return f"{page[1]}@{revision}" if revision not in ("", "main") else page[1]


def _parse(typed: str) -> _HubName:
    explicit = typed.startswith(HUB_SCHEME)
    repository, _, revision = typed.removeprefix(HUB_SCHEME).partition("@")
    if not (explicit or "/" in repository) or not _HUB_ID.fullmatch(repository):
        raise PresetError(
            f"{shown(typed)} is neither a directory nor a hub id such as hf://openai-community/gpt2"
        )
    if revision and not (_REVISION.fullmatch(revision) and revision.isprintable()):
        raise PresetError(
            f"{shown(revision)} after {repository}@ cannot be a branch, a tag or a commit"
        )
    return _HubName(repository, revision or None, explicit)


def _from_cache(
    name: _HubName, files: Sequence[str] = NEEDED_FILES
) -> tuple[Path | None, list[str]]:
    """Return the cached snapshot, if any, and its missing files, without a request.

    ``files``: those of a model, also without weights, or of an adapter.
    """

    def lacking(directory: Path) -> list[str]:
        if files is _ADAPTER_FILES:
            return _absent(directory, files)
        return missing_files(directory, files is NEEDED_FILES)

    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        doubt = "" if name.explicit else f"{shown(name.repository)} is not a directory; "
        raise PresetError(
            f"{doubt}to fetch {name.repository} from the Hugging Face Hub: "
            f"{_pip_install('gpt2-wgpu[hub]')}"
        ) from None
    try:
        found = snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(files),
            local_files_only=True,
        )
    except LocalEntryNotFoundError as error:
        # Newer versions raise for an incomplete snapshot; the error has its path.
        part: str | None = getattr(error, "snapshot_path", None)
        if part is None:
            return None, []
        return Path(part), lacking(Path(part)) or ["some files"]
    except HFValidationError as error:
        raise PresetError(
            f"{shown(name.repository)} is not a valid hub id: {first_line(error)}"
        ) from None
    return Path(found), lacking(Path(found))


def _pip_install(requirement: str) -> str:
    """Return the shell command that installs ``requirement`` into this Python."""
    words = [sys.executable or "python", "-m", "pip", "install", requirement]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _unreachable(name: _HubName, cache_lacks: list[str]) -> str:
    state = f"is in the local cache without {listed(cache_lacks)}"
    return (
        f"{name} {state if cache_lacks else 'is not in the local cache'}, and the Hub "
        "cannot be reached (offline?); connect once, or pass the directory of a checkpoint"
    )


def missing_files(directory: Path, weights: bool = True) -> list[str]:
    """Return the names of files missing from a snapshot (after an aborted download).

    ``weights``: whether it needs them.
    """
    lacking = _absent(directory, ["config.json"])
    if weights and not (directory / SINGLE_FILE).exists():
        try:
            lacking += _absent(directory, shard_names(directory / INDEX_FILE))
        except WeightsError:
            lacking.append("safetensors weights")
    if not (directory / WHOLE_TOKENIZER).exists():
        groups = [
            names for names in TOKENIZER_PARTS if len(_absent(directory, names)) == len(names)
        ]
        if len(groups) == len(TOKENIZER_PARTS):
            lacking.append("tokenizer (vocab.json and merges.txt, or tokenizer.json)")
        else:
            lacking += [names[0] for names in groups]
    return lacking


def _absent(directory: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if not (directory / name).exists()]
