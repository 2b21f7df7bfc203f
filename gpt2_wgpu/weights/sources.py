"""From a name to a directory with a checkpoint: a local one, or one from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gpt2_wgpu.errors import PresetError, WeightsError
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, shard_names

HUB_SCHEME = "hf://"
#: What is fetched from a repository; everything else there (other frameworks' weights) is not.
NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    SINGLE_FILE,
    INDEX_FILE,
    "model-*-of-*.safetensors",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
)
_UNREACHABLE = (
    "{} is not (completely) in the local cache and the Hub cannot be reached (offline?); "
    "connect once, or pass the directory of a checkpoint"
)
_HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)


def resolve_directory(
    name_or_path: str | os.PathLike[str], on_progress: Callable[[str], None] | None = None
) -> Path:
    """Return the directory of a checkpoint, fetching it if it is on the Hub.

    A directory that exists is returned as it is. ``hf://owner/name``, ``owner/name`` and either
    with ``@revision`` name a repository on the Hub, which needs the extra ``hub``. A complete copy
    in the Hub's local cache is used without any request, so a model once fetched starts offline
    and at once; newer versions are not looked for (pass ``@<commit>``, or update the cache with
    the command ``hf download``).

    Args:
        name_or_path: the directory or the repository.
        on_progress: told in one line, before the network is used, what will be fetched. Progress
            bars are huggingface_hub's own (on a terminal only).

    Raises:
        PresetError: the name is neither, huggingface_hub is not installed, the repository does
            not exist, is gated or holds no safetensors, or it is not cached and cannot be fetched.
    """
    name = os.fspath(name_or_path)
    if os.path.isdir(name):
        return Path(name)
    repository, _, revision = name.removeprefix(HUB_SCHEME).partition("@")
    is_hub_name = name.startswith(HUB_SCHEME) or "/" in repository
    if not is_hub_name or not _HUB_ID.fullmatch(repository):
        raise PresetError(
            f"{name!r:.120} is neither a directory nor a hub id such as hf://openai-community/gpt2"
        )
    directory = _from_cache(repository, revision or None)
    if directory is None:
        if on_progress is not None:
            on_progress(f"fetching {repository} from the Hugging Face Hub")
        directory = _from_hub(repository, revision or None)
        if lacking := _lacking(directory):
            if not _is_reachable(repository):
                raise PresetError(_UNREACHABLE.format(repository))
            raise PresetError(
                f"{repository} on the Hub has no {lacking}; "
                "convert its weights with transformers' save_pretrained() into a directory"
            )
    return directory


def _from_cache(repository: str, revision: str | None) -> Path | None:
    """Return the cached snapshot if it holds all that a model needs; no request is made."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise PresetError(
            f"{repository!r} is not a directory; to fetch it from the Hugging Face Hub: "
            "pip install 'gpt2-wgpu[hub]'"
        ) from None
    try:
        found = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(NEEDED_FILES),
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise PresetError(f"{repository!r} is not a valid hub id: {_first_line(error)}") from None
    directory = Path(found)
    return None if _lacking(directory) else directory


def _from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(NEEDED_FILES))
    except GatedRepoError:  # before its base class RepositoryNotFoundError
        raise PresetError(
            f"{repository} on the Hub is gated: accept its terms on its page and log in with "
            "'hf auth login'"
        ) from None
    except RepositoryNotFoundError:
        raise PresetError(
            f"{repository!r} is neither a directory nor a public repository on the Hub; check the "
            "spelling, or log in with 'hf auth login' if it is private"
        ) from None
    except RevisionNotFoundError:
        raise PresetError(f"{repository} on the Hub has no revision {revision!r}") from None
    except LocalEntryNotFoundError:
        raise PresetError(_UNREACHABLE.format(repository)) from None
    except Exception as error:
        # huggingface_hub lets its HTTP library's errors through, and that library has changed
        # twice: no narrower class holds for all versions.
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise PresetError(f"{repository} could not be fetched from the Hub: {reason}") from None
    return Path(found)


def _is_reachable(repository: str) -> bool:
    """Ask the Hub: offline, snapshot_download returns half a snapshot without a word."""
    from huggingface_hub import model_info

    try:
        model_info(repository, timeout=10)
    except Exception:  # offline mode, or whatever the HTTP library of this version raises
        return False
    return True


def _lacking(directory: Path) -> str | None:
    """Name what a snapshot lacks to be a model, if anything (an aborted download lacks some)."""
    if not (directory / "config.json").exists():
        return "config.json"
    if not (directory / SINGLE_FILE).exists():
        try:
            shards = shard_names(directory / INDEX_FILE)
        except WeightsError:
            return "safetensors weights"
        for shard in shards:
            if not (directory / shard).exists():
                return shard
    pair = (directory / "vocab.json").exists() and (directory / "merges.txt").exists()
    if not pair and not (directory / "tokenizer.json").exists():
        return "tokenizer (vocab.json and merges.txt, or tokenizer.json)"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0]
