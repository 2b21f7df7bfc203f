"""Writes docs/cli.md from the parsers of the command line: `python scripts/generate_docs.py`.

The text has all that `--help` prints, in a form that does not depend on the version of argparse.
With `--check` nothing is written: the exit status is 1 if the file is not current.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2_wgpu.cli.program import build_parser

PATH = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_HEAD = """\
# The command line

The help texts of `gpt2-wgpu`, written by `python scripts/generate_docs.py`.
"""


def main(argv: list[str]) -> int:
    current = PATH.is_file() and PATH.read_text("utf-8") == document()
    if not current and argv != ["--check"]:
        PATH.write_text(document(), "utf-8")
    return int(argv == ["--check"] and not current)


def document() -> str:
    """The text of docs/cli.md."""
    program = build_parser()
    commands = next(
        action for action in program._actions if isinstance(action, argparse._SubParsersAction)
    )
    parsers = [program, *commands.choices.values()]
    return "\n".join([_HEAD, *("\n".join(section(parser)) for parser in parsers)])


def section(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The lines of one command."""
    yield from (f"## {parser.prog}", "", " ".join((parser.description or "").split()))
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if not actions:
            continue
        title = (group.title or "").capitalize()
        yield from ("", f"| {title} | |", "|---|---|")
        for action in actions:
            yield from rows(parser, action)
    if parser.epilog:
        yield from ("", "```text", parser.epilog.strip(), "```")
    yield ""


def rows(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    """The rows of a table for one argument, or for each command."""
    if isinstance(action, argparse._SubParsersAction):
        for command in action._choices_actions:
            yield f"| `{command.dest}` | {command.help} |"
        return
    value = action.metavar if action.nargs != 0 else None
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = ", ".join(action.option_strings)
    call = " ".join(filter(None, (names, str(value) if value else "")))
    text = parser._get_formatter()._expand_help(action).replace("|", "\\|")
    yield f"| `{call}` | {text} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
