"""The parser, and the values that options take: each names its bound when it refuses a value."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.sampling_parameters import MAX_COUNT
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import Range

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """An argument parser that says in one line what is wrong, and when its help is not read."""

    quoting = ""  # what to say of words too many

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

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Ends the program over arguments that this command does not know."""
        hint = "; " + self.quoting if self.quoting and not unknown[0].startswith("-") else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


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


def integer(least: int, most: int = MAX_COUNT) -> Callable[[str], int]:
    """Makes a type for integers in [least, most]."""
    return in_range(Range(least, most, whole=True))


def add_adapter(group: argparse._ActionsContainer) -> None:
    """Adds the option --adapter; :func:`use_adapter` obeys it."""
    group.add_argument(
        "--adapter",
        type=_adapter,
        metavar="GPU",
        help="GPU to use, by index or a part of its name; one that does not exist lists them "
        "(default: the fastest kind)",
    )


def use_adapter(args: argparse.Namespace) -> None:
    """Opens the GPU of --adapter, if given, for all that follows."""
    if args.adapter is not None:
        import gpt2_wgpu as gw

        gw.set_default_device(gw.Device(adapter=args.adapter))


def _adapter(text: str) -> int | str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{shown(text)} names no GPU")
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text


def utf8(text: str) -> str:
    """A text that arrived as valid UTF-8 (Python hides the bytes of any other as surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not valid UTF-8") from None
    return text


def stop_text(text: str) -> str:
    """A text to stop at: every text contains the empty one."""
    if not text:
        raise argparse.ArgumentTypeError("'' is empty; a text to stop at has at least 1 character")
    return utf8(text)
