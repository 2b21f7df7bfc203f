"""The output streams: text to stdout, flushed at once; messages to stderr, in colour if wanted."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO

INTERRUPTED = 130  # the exit status after Ctrl-C: 128 + SIGINT
_RED, _YELLOW, _DIM, _BOLD = "31", "33", "2", "1"


class OutputError(Exception):
    """Standard output cannot be written; the message says why."""


class ReaderGoneError(OutputError):
    """stdout was closed by its reader (EPIPE), as `head` does."""


def interrupt_at_once() -> None:
    """Makes the next Ctrl-C end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def recorded_interrupts(
    cancel: Callable[[], None] | None = None,
) -> Iterator[Callable[[], bool]]:
    """Records SIGINT instead of raising; yields a predicate. A second SIGINT ends the process.

    It calls `cancel`, which only sets a flag.

    A KeyboardInterrupt could be raised anywhere: in a callback it is lost, and inside the driver it
    leaves an object half made. A SIGINT that is ignored or handled otherwise stays so.
    """
    noted = threading.Event()

    def note(*_: object) -> None:
        noted.set()
        if cancel is not None:
            cancel()
        interrupt_at_once()

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = ours and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        if ours and not noted.is_set():
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def ending_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise SystemExit (128 + the signal), so that files are removed.

    A signal that is ignored (nohup) or handled otherwise stays so.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Terminal:
    """The two output streams of a command.

    Colour is used only on a terminal, and not where NO_COLOR is set (https://no-color.org).
    """

    def __init__(self) -> None:
        self.quiet = False
        self.warned: list[str] = []  # warnings of the library
        self._in_line = False
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # in any locale

    def write(self, text: str, *, bold: bool = False) -> None:
        """Writes text to stdout and flushes it; raises OutputError if that fails."""
        if sys.stdout is None:
            raise OutputError("cannot write to standard output: it is closed")
        styled = _styled(text, _BOLD, sys.stdout) if bold and text else text
        try:
            sys.stdout.write(styled)
            sys.stdout.flush()
        except BrokenPipeError as error:
            self._discard_output()
            raise ReaderGoneError(error.strerror) from error
        except OSError as error:
            self._discard_output()
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error
        if text:
            self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Ends the line of stdout that was begun, if one was."""
        if self._in_line:
            self.write("\n")

    def info(self, message: str) -> None:
        """Prints a message, unless quiet."""
        if not self.quiet:
            _print_error_stream(f"gpt2-wgpu: {message}", _DIM)

    def waiting(self, message: str) -> None:
        """Prints what the program is waiting for; only on a terminal, like progress."""
        if self._is_watched():
            self.info(message)

    def warn(self, message: str) -> None:
        """Prints a warning, unless quiet."""
        if not self.quiet:
            line = " ".join(message.split())
            _print_error_stream(f"gpt2-wgpu: warning: {line}", _YELLOW)

    @contextlib.contextmanager
    def warnings_as_lines(self) -> Iterator[None]:
        """Prints Python's warnings by `warn`, without file and source line."""

        def show(message: Warning | str, *_: object, **__: object) -> None:
            line = str(message).replace('dtype="float16"', "--dtype f16")  # the command's option
            self.warn(line)
            self.warned.append(line)

        with warnings.catch_warnings():
            warnings.showwarning = show
            yield

    def error(self, message: str) -> None:
        """Prints an error in one line."""
        with contextlib.suppress(OutputError):
            self.end_line()
        line = " ".join(message.split())
        _print_error_stream(f"gpt2-wgpu: error: {line}", _RED)

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "B") -> Iterator[Callable[[int, int], None] | None]:
        """Yields `report(done, total)` for a progress bar; None without a terminal."""
        if not self._is_watched():
            yield None
            return
        from tqdm import tqdm

        with tqdm(desc=label, unit=unit, unit_scale=True, file=sys.stderr, leave=False) as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield report

    def _is_watched(self) -> bool:
        return not self.quiet and sys.stderr is not None and sys.stderr.isatty()

    def _discard_output(self) -> None:
        """Discards buffered output, of which Python would otherwise complain at exit."""
        self._in_line = False
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _print_error_stream(line: str, style: str) -> None:
    if sys.stderr is None:
        return
    # An error here has no stream left to be reported on.
    with contextlib.suppress(OSError):
        sys.stderr.write(_styled(line, style, sys.stderr) + "\n")
        sys.stderr.flush()


def _styled(text: str, style: str, stream: TextIO) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{style}m{text}\033[0m"
