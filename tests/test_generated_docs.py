"""docs/cli.md and docs/ops.md are what `scripts/generate_docs.py` writes, and are complete."""

from __future__ import annotations

import argparse
import re

from generate_docs import document, documents

from gpt2_wgpu import ops
from gpt2_wgpu.cli.program import build_parser


def test_the_files_are_current() -> None:
    for path, text in documents().items():
        assert path.read_text(encoding="utf-8") == text, "run python scripts/generate_docs.py"


def test_every_operation_has_a_row_with_a_sentence() -> None:
    (text,) = (text for path, text in documents().items() if path.name == "ops.md")
    rows = re.findall(r"^\| `(\w+)\([^`|]*\)` \| [A-Z`][^|]*[.:] \|$", text, re.MULTILINE)
    assert rows == sorted(ops.__all__)


def test_every_option_is_there() -> None:
    text = document()
    commands = next(
        action for action in build_parser()._actions if isinstance(action.choices, dict)
    )
    assert isinstance(commands, argparse._SubParsersAction)
    for name, parser in commands.choices.items():
        own = text.partition(f"## gpt2-wgpu {name}\n")[2].partition("\n## ")[0]
        listed = re.findall(r"^\| `(--?[^`]*)`", own, re.MULTILINE)
        options = [option for action in parser._actions for option in action.option_strings]
        assert len(options) >= 3
        for option in options:
            assert [line for line in listed if option in re.split(r"[, ]+", line)], option
