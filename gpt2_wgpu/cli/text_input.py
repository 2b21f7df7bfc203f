"""Texts that a command reads: from standard input or a file, in UTF-8."""

from __future__ import annotations

import sys
from pathlib import Path

from gpt2_wgpu.errors import InvalidArgumentError


def read_text(path: Path | None = None) -> str:
    """Returns the text of a file, or of standard input (None, or "-"), without a final newline.

    `echo` and editors add that newline, which is not part of the text. Raises InvalidArgumentError
    if the file cannot be read or is not UTF-8.
    """
    if path is None or str(path) == "-":
        name, remedy = "standard input", "convert it, or give the text as an argument"
        data = sys.stdin.buffer.read() if sys.stdin is not None else b""
    else:
        name, remedy = str(path), "convert it"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidArgumentError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"{name} is not valid UTF-8: byte {data[error.start]:#04x} at {error.start}; {remedy}"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def is_terminal() -> bool:
    """Returns whether standard input is a terminal, at which a command would wait for a person."""
    return sys.stdin is not None and sys.stdin.isatty()
