"""`gpt2-wgpu serve`: the page in your own browser, from this machine."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

from gpt2_wgpu.cli.options import Parser, integer
from gpt2_wgpu.cli.static_site import MANIFEST, LocalServer, Site
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import InvalidArgumentError, PresetError
from gpt2_wgpu.shown import shown

_PORT = 8000
_BUILDER = Path("scripts", "build_site.py")

_EPILOG = """\
The page runs in the browser, on the browser's WebGPU: nothing is computed here, and nothing
leaves this machine. It is built first, from a checkout of the repository (needs npm once).

examples:
  gpt2-wgpu serve
  gpt2-wgpu serve --port 9000 --model path/to/checkpoint
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `serve` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "serve",
        help="serve the page for a browser on this machine",
        description="Builds the page if need be, and serves it on localhost until Ctrl-C.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--port",
        type=integer(0, 65535),
        default=_PORT,
        metavar="N",
        help="0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="offer a model to the page: a directory in Hugging Face's format (repeatable)",
    )
    parser.add_argument(
        "--site", type=Path, metavar="DIR", help="a page that was built before (default: build it)"
    )
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serves until Ctrl-C; returns the exit status."""
    models = _named(args.model)
    checkout = None if args.site else _checkout()
    folder = checkout / "dist" if checkout else args.site
    try:  # models and port first: building takes a while
        server = LocalServer(Site(folder, models), args.port)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
        raise InvalidArgumentError(f"port {args.port} {why}: choose another with --port") from None
    with server:
        if checkout:
            _build(checkout, terminal)
        if not (folder / MANIFEST).is_file():
            raise InvalidArgumentError(f"{folder} holds no built page: it has no {MANIFEST}")
        terminal.write(f"{server.address}\n")
        terminal.note(f"serving {folder}{_with(models)}; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            terminal.end_line()
    return 0


def _named(directories: list[Path]) -> dict[str, Path]:
    """Models by the names of their directories."""
    models: dict[str, Path] = {}
    for directory in directories:
        name = os.path.basename(os.path.realpath(directory))
        if models.setdefault(name, directory) is not directory:
            raise PresetError(
                f"two models are called {shown(name)}: rename one of their directories"
            )
    return models


def _with(models: dict[str, Path]) -> str:
    return f" with {', '.join(models)}" if models else ""


def _checkout() -> Path:
    """Where the site can be built; raises InvalidArgumentError if that is nowhere."""
    package = Path(__file__).resolve().parents[2]
    checkout = next(
        (place for place in (package, Path.cwd()) if (place / _BUILDER).is_file()), None
    )
    if checkout is None:
        raise InvalidArgumentError(
            "the page is built from a checkout of the repository, and there is none here (looked "
            f"in {package} and the current directory): run this command in one, or pass --site "
            "with a folder that 'make site' has made"
        )
    return checkout


def _build(checkout: Path, terminal: Terminal) -> None:
    """Builds the site anew where its sources have changed.

    Raises InvalidArgumentError if that fails; the message says why.
    """
    terminal.note("building the page")
    command = [sys.executable, str(checkout / _BUILDER)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise InvalidArgumentError(f"the page cannot be built: {lines[-1]}")
