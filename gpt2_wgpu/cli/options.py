"""The argument parser and the types of options; an error of a type names its bound."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.sampling_parameters import MAX_COUNT
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import Range

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

RECORD_SUFFIXES = (".jsonl", ".csv")


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong usage in one line, with the command for its help."""

    quoting = ""  # a hint for superfluous positional arguments
    # Finds two options, by their names in Python, of which the first excludes the second.
    conflict: Callable[[argparse.Namespace], tuple[str, str] | None] | None = None

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Prints the help to `file`, by default to stdout; raises OutputError if that fails."""
        if file is None:
            Terminal().write(self.format_help())
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (see '{self.prog} --help')\n")

    def reject(self, unknown: Sequence[str]) -> NoReturn:
        """Ends the program with status 2 because of unknown arguments."""
        if unknown[0].startswith("-"):
            hint = suggestion(unknown[0].partition("=")[0], self._option_string_actions)
        else:
            hint = "; " + self.quoting if self.quoting else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")

    def check(self, args: argparse.Namespace) -> None:
        """Ends the program with status 2 if two of its options cannot be combined."""
        if self.conflict is not None and (found := self.conflict(args)):
            flags = {each.dest: each.option_strings[:1] for each in self._actions}
            (one,), (other,) = (flags[name] for name in found)
            self.error(f"argument {other}: not allowed with argument {one}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises ArgumentError for a value that is no choice; a method of argparse."""
        if action.choices is not None and value not in action.choices:
            names = [str(each) for each in action.choices]
            hint = suggestion(str(value), names)
            message = f"invalid choice: {shown(value)}{hint} (choose from {', '.join(names)})"
            raise argparse.ArgumentError(action, message)


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """Returns "; did you mean X?" for the most similar of `names`, or ""."""
    close = difflib.get_close_matches(wrong, list(names), 1)
    return f"; did you mean {close[0]}?" if close else ""


def in_range(allowed: Range) -> Callable[[str], Any]:
    """Makes a type for the numbers of a range."""

    def parse(text: str) -> float:
        try:
            value = allowed.find(int(text) if allowed.whole else float(text))
        except ValueError:
            value = None
        if value is None:
            raise argparse.ArgumentTypeError(f"{shown(text)} must be {allowed}")
        return value

    return parse


def or_unlimited(allowed: Range) -> Callable[[str], Any]:
    """Makes a type for the numbers of a range, where -1 is the largest one."""
    parse = in_range(allowed)

    def parse_limit(text: str) -> Any:
        if text.strip() == "-1":
            return int(allowed.high)
        try:
            return parse(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or -1") from None

    return parse_limit


def integer(least: int, most: int = MAX_COUNT) -> Callable[[str], int]:
    """Makes a type for integers in [least, most]."""
    return in_range(Range(least, most, whole=True))


def add_adapter(group: argparse._ActionsContainer) -> None:
    """Adds the option --adapter, which :func:`use_adapter` applies."""
    group.add_argument(
        "--adapter",
        type=_adapter,
        metavar="GPU",
        help="GPU to use: an index or part of a name; an unknown one lists them (default: the "
        "fastest kind)",
    )


def use_adapter(args: argparse.Namespace) -> None:
    """Makes the GPU of --adapter, if given, the default device."""
    if args.adapter is not None:
        import gpt2_wgpu as gw

        gw.set_default_device(gw.Device(adapter=args.adapter))


def _adapter(text: str) -> int | str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{shown(text)} is empty; give an index or part of a name")
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text


def utf8(text: str) -> str:
    """A valid UTF-8 argument (Python decodes invalid bytes to surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not valid UTF-8") from None
    return text


def file_path(text: str) -> Path:
    """The path of a file or folder; the empty one would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("'' is empty; give the name of a file or folder")
    return Path(text)


def record_path(text: str) -> Path:
    """The path of a file of records, whose suffix says its format."""
    path = file_path(text)
    if path.suffix.lower() not in RECORD_SUFFIXES:
        allowed = " or ".join(RECORD_SUFFIXES)
        raise argparse.ArgumentTypeError(f"{shown(text)} must end with {allowed}")
    return path


def stop_text(text: str) -> str:
    """A non-empty stop text: every text contains the empty one."""
    if not text:
        raise argparse.ArgumentTypeError("'' is empty; a stop text has at least 1 character")
    return utf8(text)
