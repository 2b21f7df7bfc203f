"""Size-limited reading of a checkpoint's files other than weights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 64 << 20
"""Size limit of configuration, index and tokenizer files."""


def read(path: str | os.PathLike[str]) -> bytes:
    """Return all bytes of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file or larger than `MAX_BYTES`; the message is a phrase
            that fits after the file's name and a colon.
    """
    # Check the type first: opening a named pipe would block.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("this is not a regular file")
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size)
        return file.read(size)  # not MAX_BYTES: Python allocates the requested size at once


def check_size(nbytes: int) -> None:
    """Raise ValueError if a file exceeds `MAX_BYTES`."""
    if nbytes > MAX_BYTES:
        raise ValueError(
            f"{nbytes:,} bytes is above the limit of {MAX_BYTES:,} for a configuration, an index "
            "or a tokenizer's file"
        )
