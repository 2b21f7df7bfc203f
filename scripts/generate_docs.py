"""Writes docs/cli.md and docs/ops.md: `python scripts/generate_docs.py`.

docs/cli.md has all that `--help` prints, in a form that does not depend on the version of argparse;
docs/ops.md has the signature and first line of each operation of `gw.ops`. With `--check` nothing
is written: the exit status is 1 if a file is not current.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2_wgpu import ops
from gpt2_wgpu.cli.program import build_parser

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_HEAD = """\
# The command line

The help texts of `gpt2-wgpu`, written by `python scripts/generate_docs.py`.
"""


_OPS_HEAD = """\
# Operations

The functions of `gw.ops`, written by `python scripts/generate_docs.py`; `help(gw.ops.softmax)`
gives shapes, dtypes and errors. Arguments are tensors, numbers, nested sequences or NumPy arrays.
Each runs on the GPU, and `gw.tidy` frees its result ([memory.md](memory.md)). Tensors also have the
operators `+ - * / @`, `< <= > >=`, `& | ~` and indexing; `gw.ops.equal` compares values (`==`
compares objects). `gw.tensor` makes float32 of any numbers unless a dtype is given.
"""


def main(argv: list[str]) -> int:
    texts = documents()
    stale = [path for path in texts if not path.is_file() or path.read_text("utf-8") != texts[path]]
    if argv == ["--check"]:
        return int(bool(stale))
    for path in stale:
        path.write_text(texts[path], "utf-8")
    return 0


def documents() -> dict[Path, str]:
    """The text of each file."""
    return {_DOCS / "cli.md": document(), _DOCS / "ops.md": operations()}


def operations() -> str:
    """The text of docs/ops.md."""
    lines = [_OPS_HEAD, "| Operation | |", "|---|---|"]
    for name in sorted(ops.__all__):
        operation = getattr(ops, name)
        arguments = ", ".join(map(argument, inspect.signature(operation).parameters.values()))
        summary = (inspect.getdoc(operation) or "").partition("\n")[0]
        summary = re.sub(r":func:`(\w+)`", r"`\1`", summary).replace("``", "`")
        lines.append(f"| `{name}({arguments})` | {summary} |")
    return "\n".join(lines) + "\n"


def argument(parameter: inspect.Parameter) -> str:
    """The name of an argument, with its default; `*` marks those that need their name."""
    star = "*, " if parameter.kind is parameter.KEYWORD_ONLY else ""
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{star}{parameter.name}{default}"


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
        if group.description:
            yield from ("", group.description)
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
