"""Lines that a user types: at a terminal, with history and editing, or through a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpt2_wgpu.errors import InvalidArgumentError

if TYPE_CHECKING:
    from prompt_toolkit.history import History

QUOTES = '"""'  # around a text of several lines


class LineReader(Protocol):
    """Source of lines."""

    def read(self, prompt: str) -> str:
        """Return the next line, without its end; EOFError at the end of the input."""
        ...


class PipedLines:
    """Lines of standard input, in UTF-8."""

    def read(self, prompt: str) -> str:
        """Return the next line, without a prompt; InvalidArgumentError if it is not UTF-8."""
        data = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        if not data:
            raise EOFError
        try:
            return data.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"standard input is not valid UTF-8: byte {data[error.start]:#04x}; convert it"
            ) from None


class TerminalLines:
    """Lines typed at a terminal.

    Args:
        commands: words that the tab key completes at the start of a line.
        history: file of earlier lines; None keeps them in memory.
    """

    def __init__(self, commands: Sequence[str], history: Path | None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
        )

    def read(self, prompt: str) -> str:
        """Return the next line; KeyboardInterrupt on Ctrl-C, EOFError on Ctrl-D."""
        return self._session.prompt(prompt)


def read_turn(lines: LineReader) -> str:
    """Return a line, or the text between triple quotes on one line or several."""
    line = lines.read(">>> ")
    if not line.startswith(QUOTES):
        return line
    text = line.removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + lines.read("... ")
    return text.rstrip().removesuffix(QUOTES)


def history_file() -> Path | None:
    """Return the file of typed lines in the user's state folder; None if there is none."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_STATE_HOME", "")
        base = base if os.path.isabs(base) else os.path.expanduser("~/.local/state")
    return Path(base, "gpt2-wgpu", "history") if os.path.isabs(base) else None


def _history(file: Path | None) -> History:
    """Return the history in a file that only its user can read, or else in memory."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if file is not None:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            with file.open("ab"):
                return FileHistory(str(file))
    return InMemoryHistory()
