"""The whole command line: arguments in, exit status out; `main` starts it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.cli import (
    batch,
    bench,
    completion,
    convert,
    device_report,
    doctor,
    generate,
    interactive,
    list_models,
    run_check,
    score,
    serve,
    tokenize,
)
from gpt2_wgpu.cli.options import Parser
from gpt2_wgpu.cli.terminal import (
    INTERRUPTED,
    OutputError,
    ReaderGoneError,
    Terminal,
    interrupt_at_once,
)
from gpt2_wgpu.errors import GPT2WGPUError

_COMMANDS = (
    generate,
    interactive,
    batch,
    run_check,
    score,
    tokenize,
    list_models,
    convert,
    serve,
    doctor,
    bench,
    completion,
)
_FORMER_NAMES = {"info": "doctor"}  # of commands, which scripts may use
_DESCRIPTION = "GPT-2 text generation in WGSL compute shaders, on any GPU that WebGPU supports."

_EXAMPLES = """\
examples:
  gpt2-wgpu generate "Once upon a time"
  gpt2-wgpu generate --help
  gpt2-wgpu doctor
  gpt2-wgpu serve

Text goes to standard output, everything else to standard error. Colour is used
on terminals only, and not if NO_COLOR is set.
Exit status: 0 done (also if the reader closes the pipe), 1 failed, 2 wrong
usage, 130 interrupted."""


def run(argv: Sequence[str] | None) -> int:
    """Runs the command line `argv` (None: the process's own); returns the exit status."""
    terminal = Terminal()
    debug = bool(os.environ.get("GPT2_WGPU_DEBUG"))
    try:
        args = parse(argv)
        debug = debug or args.debug
        if getattr(args, "quiet", False):  # huggingface_hub reads it when it is imported
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        with terminal.warnings_as_lines():
            status: int = args.run(args, terminal)
        return status
    except SystemExit as exit_request:  # how argparse ends: help, version or wrong usage
        return int(exit_request.code or 0)
    except KeyboardInterrupt:
        interrupt_at_once()
        with contextlib.suppress(OutputError):
            terminal.end_line()
        terminal.info("interrupted")
        return INTERRUPTED
    except ReaderGoneError:
        return 0
    except (GPT2WGPUError, OutputError) as error:
        _explain(terminal, error, str(error), debug)
    except Exception as error:
        hint = "" if debug else ". Please report it, with the output of --debug"
        _explain(terminal, error, f"unexpected {type(error).__name__}: {error}{hint}", debug)
    return 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses `argv`; raises SystemExit as argparse does, with the hint at the command's help."""
    given = list(sys.argv[1:] if argv is None else argv)
    first = next((i for i, each in enumerate(given) if not each.startswith("-")), None)
    if first is not None and given[first] in _FORMER_NAMES:
        given[first] = _FORMER_NAMES[given[first]]
    args, unknown = build_parser().parse_known_args(given)
    if unknown:
        args.reject(unknown)
    args.check(args)
    return args


def build_parser() -> Parser:
    """Builds the parser of the whole command line, as the tests and the documentation see it."""
    parser = Parser(
        prog="gpt2-wgpu",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the versions and exit")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error (also: GPT2_WGPU_DEBUG=1)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        own = command.add_parser(commands)
        own.set_defaults(run=command.run, reject=own.reject, check=own.check)
        own.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # keeps the value given before the command
            help="show the traceback of an error (also: GPT2_WGPU_DEBUG=1)",
        )
    return parser


class _Version(argparse.Action):
    """Prints the versions; reads them only then, since that costs a fifth of the start-up."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        versions = device_report.versions()
        Terminal().write(f"gpt2-wgpu {versions['gpt2-wgpu']} (wgpu {versions['wgpu']})\n")
        parser.exit()


def _explain(terminal: Terminal, error: Exception, message: str, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    terminal.error(message)
