"""Reading a checkpoint's files other than weights, with a limit on their size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_BYTES = 64 << 20
"""The largest configuration, index or tokenizer file that is read."""


def read(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file or larger than `MOST_BYTES`; the message is a phrase that
            fits after the file's name and a colon.
    """
    # A named pipe would be waited for without end, so the kind is looked at before opening.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("this is not a regular file")
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size)
        return file.read(size)  # not MOST_BYTES: Python takes all of what is asked for at once


def check_size(nbytes: int) -> None:
    """Raises ValueError for a file that is too large to be what it should be."""
    if nbytes > MOST_BYTES:
        raise ValueError(
            f"{nbytes:,} bytes is above the limit of {MOST_BYTES:,} for a configuration, an index "
            "or a tokenizer's file"
        )
