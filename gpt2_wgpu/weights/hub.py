"""Downloads from the Hugging Face Hub, with checks for missing files and of hashes."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gpt2_wgpu.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BESIDE_WEIGHTS,
    CONFIG,
    TOKENIZER_PARTS,
    WHOLE_TOKENIZER,
)
from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.other_formats import kind_of, tokenizer_instead, weights_instead
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, shard_names
from gpt2_wgpu.weights.hub_hashes import check

_Result = TypeVar("_Result")
_SECONDS = 10  # timeout of the Hub's list of files
_HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2", "httpcore")


class UnreachableError(Exception):
    """The Hub did not respond."""


def download(
    repository: str, revision: str | None, *, explicit: bool, weights: bool = True
) -> Path:
    """Download a model's files into the Hub's cache, verify them, and return their directory.

    All files are of one commit, fetched by its hash. The cache entry of the branch or tag is
    updated last: the previous files stay in use until the new ones are complete and verified.
    ``config.json``, without which a snapshot is not a model, is downloaded after the verification
    of all others.

    Args:
        repository: the hub id.
        revision: a branch, tag or commit; None for the default.
        explicit: the id cannot be a directory, so messages do not mention directories.
        weights: False: only the files beside the weights.

    Raises:
        PresetError: the Hub rejects the request or fails, the repository contains no model, or
            the hash of a file differs from the Hub's.
        WeightsError: the index of shards is malformed.
        UnreachableError: the Hub did not respond.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    at = f"{repository}@{revision}" if revision else repository
    asked = _Asked(repository, revision, explicit)

    def fetched(name: str, revision: str | None) -> Path:
        return Path(asked(lambda: hf_hub_download(repository, name, revision=revision)))

    commit, siblings = asked.listed()
    names = {sibling.rfilename for sibling in siblings}
    _require_a_model(names, at)
    files = [SINGLE_FILE] if weights else []
    with _bars_on_terminals():
        if weights and SINGLE_FILE not in names:
            files = [INDEX_FILE, *_shards(fetched(INDEX_FILE, commit), names, at)]
        files += [name for name in BESIDE_WEIGHTS if name != CONFIG]
        patterns = [glob.escape(name) for name in files]
        found = asked(
            lambda: snapshot_download(repository, revision=commit, allow_patterns=patterns)
        )
        check(Path(found), siblings, files, at)
        config = fetched(CONFIG, commit)
        check(config.parent, siblings, [CONFIG], at)
        if commit != revision:
            fetched(CONFIG, revision)
    return config.parent


def download_adapter(repository: str, revision: str | None, *, explicit: bool) -> Path:
    """Download a LoRA adapter into the Hub's cache, verify it, and return its directory.

    Arguments and errors as those of `download`.
    """
    from huggingface_hub import snapshot_download

    at = f"{repository}@{revision}" if revision else repository
    asked = _Asked(repository, revision, explicit)
    commit, siblings = asked.listed()
    names = {sibling.rfilename for sibling in siblings}
    files = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    if missing := [name for name in files if name not in names]:
        raise PresetError(f"{at} on the Hub has no {missing[0]}, so it holds no LoRA adapter")
    with _bars_on_terminals():
        found = asked(lambda: snapshot_download(repository, revision=commit, allow_patterns=files))
        check(Path(found), siblings, files, at)
        if commit != revision:  # the cache entry of the branch or tag
            asked(lambda: snapshot_download(repository, revision=revision, allow_patterns=files))
    return Path(found)


class _Asked:
    """Requests to the Hub for one repository, with this package's errors."""

    def __init__(self, repository: str, revision: str | None, explicit: bool) -> None:
        self._repository, self._revision, self._explicit = repository, revision, explicit

    def __call__(self, request: Callable[[], _Result]) -> _Result:
        try:
            return request()
        except Exception as error:
            # huggingface_hub does not wrap the errors of its HTTP library, which has changed twice:
            # no narrower class covers all versions.
            name, revision = self._repository, self._revision
            raise _explained(error, name, revision, explicit=self._explicit) from None

    def listed(self) -> tuple[str | None, Sequence[Any]]:
        """Return the commit and its files."""
        from huggingface_hub import model_info

        name, revision = self._repository, self._revision
        info = self(
            lambda: model_info(name, revision=revision, timeout=_SECONDS, files_metadata=True)
        )
        return info.sha or revision, info.siblings or []


def _shards(index: Path, names: Collection[str], at: str) -> list[str]:
    """Return the names of the shards in an index; PresetError if one is not among `names`."""
    shards = shard_names(index)
    if missing := [shard for shard in shards if shard not in names]:
        raise PresetError(
            f"{at} on the Hub lacks {len(missing)} of {len(shards)} shards of its index, "
            f"the first is {shown(missing[0])}"
        )
    return list(shards)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no details"])[0][:300]


def _require_a_model(names: Collection[str], at: str) -> None:
    """Raise PresetError if a list of files is not that of a model."""
    if CONFIG not in names:
        kind = kind_of(names)
        raise PresetError(f"{at} on the Hub has no {CONFIG}{f': {kind}' if kind else ''}")
    if SINGLE_FILE not in names and INDEX_FILE not in names:
        raise PresetError(f"{at} on the Hub: {weights_instead(names)}")
    if WHOLE_TOKENIZER not in names and not all(
        any(name in names for name in group) for group in TOKENIZER_PARTS
    ):
        raise PresetError(
            f"{at} on the Hub has no tokenizer (vocab.json and merges.txt, or tokenizer.json)"
            f"{tokenizer_instead(names)}"
        )


def _explained(
    error: Exception, repository: str, revision: str | None, *, explicit: bool
) -> Exception:
    """Translate an error of huggingface_hub or its HTTP library."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):  # before its base class RepositoryNotFoundError
        return PresetError(
            f"{repository} on the Hub is gated: accept its terms on its page and log in with "
            "'hf auth login'"
        )
    if isinstance(error, RepositoryNotFoundError):
        kind = "not" if explicit else "neither a directory nor"
        return PresetError(
            f"{shown(repository)} is {kind} a public repository on the Hub; check the "
            "spelling, or log in with 'hf auth login' if it is private"
        )
    if isinstance(error, RevisionNotFoundError):
        return PresetError(f"{repository} on the Hub has no revision {shown(revision)}")
    answer = _answer_behind(error)
    if answer is not None:
        return PresetError(f"{repository} could not be fetched: {_refusal(*answer)}")
    library = type(error).__module__.partition(".")[0]
    network = isinstance(error, ConnectionError | TimeoutError) or library in _HTTP_LIBRARIES
    if network or isinstance(error, LocalEntryNotFoundError):
        return UnreachableError()
    reason = f"{type(error).__name__}: {first_line(error)}"
    name = f"{repository}@{revision}" if revision else repository
    return PresetError(f"{name} could not be fetched from the Hub: {reason}")


def _answer_behind(error: BaseException | None) -> tuple[int, str] | None:
    """Return status and Retry-After of the HTTP response of an error or its cause."""
    for _ in range(5):
        if error is None:
            return None
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return status, str(response.headers.get("Retry-After") or "")  # type: ignore[union-attr]
        error = error.__cause__ or error.__context__
    return None


def _refusal(status: int, retry_after: str) -> str:
    when = "in a few minutes"
    if retry_after.isdecimal() and len(retry_after) < 6:
        when = f"in {retry_after} seconds"
    if status == 429:
        return f"the Hub answers 429 (too many requests); try again {when}, or log in"
    if status >= 500:
        return f"the Hub answers {status} (it has a problem); try again {when}"
    return f"the Hub answers {status}; check the name and your access ('hf auth login')"


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Context in which huggingface_hub shows progress bars only on a terminal."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    wanted = "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ  # keep a value set by the user
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if wanted or on_terminal or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
