"""The command `gpt2-wgpu serve`: serves the page to browsers on this machine, or the HTTP API."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

from gpt2_wgpu.cli import serve_api
from gpt2_wgpu.cli.options import Parser, file_path, integer
from gpt2_wgpu.cli.static_site import MANIFEST, LocalServer, Site
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown

_PORT = 8000
_BUILDER = Path("scripts", "build_site.py")
_REPOSITORY = "https://github.com/gpt2-wgpu/gpt2-wgpu"

_EPILOG = """\
The page runs in the browser, on the browser's WebGPU; the server only sends files, and only
to this machine. The page is built first, from a checkout of the repository (needs npm once).

With --api this machine computes: programs generate by OpenAI's /v1/completions, and
requests that come together share a batch. It needs the extra gpt2-wgpu[server].

examples:
  gpt2-wgpu serve
  gpt2-wgpu serve --api gpt2_base_en
  gpt2-wgpu serve --port 9000 --model path/to/checkpoint
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `serve` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "serve",
        help="serve the page, or OpenAI's API, on this machine",
        description="Serves on localhost until Ctrl-C: by default the page, which is built if its "
        "sources have changed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--port",
        type=integer(0, 65535),
        default=_PORT,
        metavar="N",
        help="port to serve on; 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        action="append",
        type=file_path,
        default=[],
        metavar="DIR",
        help="directory of a model, in Hugging Face's format, to offer on the page (repeatable)",
    )
    parser.add_argument(
        "--site",
        type=file_path,
        metavar="DIR",
        help="directory of a built page (default: build it)",
    )
    serve_api.add_options(parser)
    parser.set_defaults(error=parser.error)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command until Ctrl-C; returns the exit status."""
    serve_api.check_options(args)
    if args.api is not None:
        return serve_api.run(args, terminal)
    models = _named(args)
    checkout = None if args.site else _checkout()
    folder = checkout / "dist" if checkout else args.site
    try:  # models and port first: building takes a while
        server = LocalServer(Site(folder, models), args.port)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"is unavailable ({error})"
        raise InvalidArgumentError(f"port {args.port} {why}: choose another with --port") from None
    with server:
        if checkout:
            _build(checkout, terminal)
        if not (folder / MANIFEST).is_file():
            raise InvalidArgumentError(f"{folder} is not a built page: it has no {MANIFEST}")
        terminal.write(f"{server.address}\n")
        terminal.info(f"serving {folder}{_with(models)}; Ctrl-C to stop")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            terminal.end_line()
    return 0


def _named(args: argparse.Namespace) -> dict[str, Path]:
    """Model directories by name."""
    models: dict[str, Path] = {}
    for directory in args.model:
        name = os.path.basename(os.path.realpath(directory))
        if models.setdefault(name, directory) is not directory:
            args.error(f"two models are named {shown(name)}: rename one of the directories")
    return models


def _with(models: dict[str, Path]) -> str:
    return f" with {', '.join(models)}" if models else ""


def _checkout() -> Path:
    """The checkout to build the site from; raises InvalidArgumentError if there is none."""
    package = Path(__file__).resolve().parents[2]
    checkout = next(
        (place for place in (package, Path.cwd()) if (place / _BUILDER).is_file()), None
    )
    if checkout is None:
        raise InvalidArgumentError(
            f"neither {package} nor the current directory is a checkout of the repository, from "
            f"which the page is built: run this command in one (git clone {_REPOSITORY}), or give "
            "--site with what 'make site' built there. --api needs none"
        )
    return checkout


def _build(checkout: Path, terminal: Terminal) -> None:
    """Builds the site if its sources have changed.

    Raises InvalidArgumentError if that fails; the message says why.
    """
    terminal.info("building the page")
    command = [sys.executable, str(checkout / _BUILDER)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise InvalidArgumentError(f"the page cannot be built: {lines[-1]}")
