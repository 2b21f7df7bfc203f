"""The entry point: arguments in, exit status out.

Status: 0 done, 1 something failed at run time, 2 wrong usage, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.cli import generate, info
from gpt2_wgpu.cli.options import Parser
from gpt2_wgpu.cli.terminal import OutputError, ReaderGone, Terminal
from gpt2_wgpu.errors import GPT2WGPUError

_DESCRIPTION = "GPT-2 text generation in WGSL compute shaders, on whatever GPU WebGPU finds."

_EXAMPLES = """\
examples:
  gpt2-wgpu generate "Once upon a time"
  gpt2-wgpu generate --help
  gpt2-wgpu info

Text goes to standard output, all else to standard error.
Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's own); returns the exit status."""
    terminal = Terminal()
    debug = bool(os.environ.get("GPT2_WGPU_DEBUG"))
    try:
        args = build_parser().parse_args(argv)
        debug = debug or args.debug
        _calm_mesa()
        status: int = args.run(args, terminal)
        return status
    except SystemExit as exit_request:  # how argparse ends: help, version or wrong usage
        return int(exit_request.code or 0)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C need not be polite
        with contextlib.suppress(OutputError):
            terminal.end_line()
        return 130
    except ReaderGone:
        return 0
    except (GPT2WGPUError, OutputError) as error:
        _explain(terminal, error, str(error), debug)
    except Exception as error:
        hint = "" if debug else "; please report it, with what --debug shows"
        _explain(terminal, error, f"unexpected {type(error).__name__}: {error}{hint}", debug)
    return 1


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (generate, info):
        command.add_parser(commands).add_argument(
            "--debug",
            action="store_true",
            help="show the traceback of an error (also: GPT2_WGPU_DEBUG=1)",
        )
    return parser


class _Version(argparse.Action):
    """Prints the versions; reads them only then, since that costs a fifth of the start-up."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        versions = info.versions()
        Terminal().write(f"gpt2-wgpu {versions['gpt2-wgpu']} (wgpu {versions['wgpu']})\n")
        parser.exit()


def _explain(terminal: Terminal, error: Exception, message: str, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    terminal.error(message)


def _calm_mesa() -> None:
    """Keeps Mesa's device-selection layer from complaining where there is no desktop session.

    The layer asks Wayland which GPU shows the desktop; libwayland then prints "error:
    XDG_RUNTIME_DIR is invalid or not set in the environment" several times (Mesa 22.3; the same in
    https://github.com/KhronosGroup/Vulkan-Tools/issues/721). Without a session the layer has
    nothing to select by, so it stays out. Can go when Mesa asks only inside a session.
    """
    selecting = {"XDG_RUNTIME_DIR", "DRI_PRIME", "MESA_VK_DEVICE_SELECT"}
    if sys.platform == "linux" and selecting.isdisjoint(os.environ):
        os.environ.setdefault("NODEVICE_SELECT", "1")
