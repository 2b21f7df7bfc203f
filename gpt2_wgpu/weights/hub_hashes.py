"""Verification of downloaded files by the hashes that the Hub publishes.

huggingface_hub compares only the sizes of files fetched over plain HTTP. The Hub publishes a
SHA-256 for files in Git LFS, and for all others the id of their Git blob, the SHA-1 of a short
header and the content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.shown import listed, shown


def check(snapshot: Path, siblings: Iterable[Any], fetched: Collection[str], at: str) -> None:
    """Verify the files fetched into a snapshot of the Hub's cache; delete those that differ.

    The Hub's list (possibly a mirror's) contains other files, too, and arbitrary paths: only
    fetched files directly in the snapshot are read or deleted.

    Args:
        snapshot: the directory.
        siblings: the ``RepoSibling`` of each file, requested with ``files_metadata``. A file
            without a hash (possible on a mirror) is not verified.
        fetched: names of the requested files.
        at: the repository, for messages.

    Raises:
        PresetError: a file differs, or the path of a fetched file is outside the snapshot.
    """
    wrong = []
    blobs = (snapshot.parents[1] / "blobs").resolve()
    for sibling in siblings:
        if sibling.rfilename not in fetched:
            continue
        path = snapshot / sibling.rfilename
        if path.parent != snapshot:
            raise PresetError(
                f"{at} lists the file {shown(sibling.rfilename)}, which is outside its directory; "
                "if HF_ENDPOINT names a mirror, try another one"
            )
        if path.is_file() and not _is_as_stated(path, sibling):
            blob = path.resolve()
            path.unlink()
            if blob.parent == blobs:  # else the system has no links, and `path` was the file
                blob.unlink(missing_ok=True)
            wrong.append(sibling.rfilename)
    if wrong:
        raise PresetError(
            f"{listed(wrong)} of {at} arrived with another hash than the Hub states and was "
            "deleted; try again, and if HF_ENDPOINT names a mirror, try another one"
        )


def _is_as_stated(path: Path, sibling: Any) -> bool:
    if sibling.lfs:
        return _digest(path, hashlib.sha256()) == str(sibling.lfs["sha256"])
    if not sibling.blob_id:
        return True
    header = f"blob {path.stat().st_size}\0".encode()
    return _digest(path, hashlib.sha1(header, usedforsecurity=False)) == str(sibling.blob_id)


def _digest(path: Path, state: Any) -> str:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    digest: str = state.hexdigest()
    return digest
