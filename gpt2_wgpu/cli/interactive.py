"""The command `gpt2-wgpu run`: a text written in turns by a user and a model."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from gpt2_wgpu.cli.draft_options import add_draft, load_draft
from gpt2_wgpu.cli.line_readers import LineReader, PipedLines, TerminalLines, history_file
from gpt2_wgpu.cli.model_options import add_weights, default_model, load_model
from gpt2_wgpu.cli.options import Parser, use_adapter, utf8
from gpt2_wgpu.cli.repl import COMMANDS, Repl
from gpt2_wgpu.cli.sampling_options import add_allowed_special, add_limits, add_sampling
from gpt2_wgpu.cli.terminal import Terminal

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_EPILOG = """\
The model continues what you type, and you go on from there: GPT-2 writes on, it
does not answer questions. /help lists the commands. Ctrl-C stops the model and
keeps what it has written, Ctrl-D ends. Lines typed at a terminal are kept in a
file of the user's state folder. From a pipe, each line is a turn or a command.

examples:
  gpt2-wgpu run
  gpt2-wgpu run gpt2_base_en
  gpt2-wgpu run fairytales "Once upon a time"
  printf '/set seed 1\\nOnce\\n/show model\\n' | gpt2-wgpu run
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `run` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "run",
        help="write a text in turns with a model",
        description="Continues what you type, turn by turn; with PROMPT, once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.quoting = "put a prompt of several words in quotes"
    parser.add_argument(
        "model",
        nargs="?",
        default=default_model(),
        metavar="MODEL",
        help="model to load, see 'models' in `generate --help` (default: $GPT2_WGPU_MODEL, else "
        "fairytales)",
    )
    parser.add_argument(
        "prompt", nargs="?", type=utf8, metavar="PROMPT", help="text to continue, once"
    )
    add_weights(parser)
    add_sampling(parser)
    add_draft(parser)
    add_limits(parser.add_argument_group("stopping"))
    add_allowed_special(parser, "what you type")
    parser.add_argument(
        "--verbose", action="store_true", help="print the statistics of each text on stderr"
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, warnings or notes on stderr"
    )
    parser.set_defaults(parser=parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    use_adapter(args)
    draft = load_draft(args, terminal)
    lm = load_model(args, terminal)
    with closing(Repl(lm, args, terminal, draft)) as repl:
        return _run(repl, lm, args, terminal)


def _run(repl: Repl, lm: gw.GPT2CausalLM, args: argparse.Namespace, terminal: Terminal) -> int:
    if args.prompt is not None:
        return repl.continue_once(args.prompt)
    lines: LineReader = PipedLines()
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        terminal.info(
            f"{args.model} on {lm.device.info.name}; /help lists the commands, Ctrl-D ends"
        )
        lines = TerminalLines(list(COMMANDS), history_file())
    return repl.run(lines)
