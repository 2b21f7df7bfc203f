"""The HTTP API of `gpt2-wgpu serve --api`: its options, and the server's start and end."""

from __future__ import annotations

import argparse
import ipaddress
import os
from typing import Any

from gpt2_wgpu.cli.model_options import add_weights, default_model, load_model
from gpt2_wgpu.cli.options import Parser, integer, use_adapter, utf8
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import DependencyError

_KEY = "GPT2_WGPU_API_KEY"
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}
_ROWS, _QUEUE = 16, 128
# Options that have no meaning without --api, with their values if not given.
_ONLY_API: dict[str, Any] = {
    "--host": None,
    "--dtype": None,
    "--adapter": None,
    "--adapter-weights": None,
    "--api-key": None,
    "--cors": [],
    "--max-rows": None,
    "--max-queue": None,
    "--no-stop": False,
}


def add_options(parser: Parser) -> None:
    """Adds the options of the API."""
    group = parser.add_argument_group("API options")
    group.add_argument(
        "--api",
        nargs="?",
        const="",
        metavar="MODEL",
        help="serve the API of MODEL, see 'models' in `generate --help`, instead of the page "
        "(without MODEL: the default of `generate`)",
    )
    group.add_argument(
        "--host",
        type=utf8,
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 for all of this machine (default: 127.0.0.1)",
    )
    group.add_argument(
        "--api-key",
        type=utf8,
        metavar="KEY",
        help="key that clients have to send; other users of this machine cannot see it in the "
        f"environment variable {_KEY} (default: none)",
    )
    group.add_argument(
        "--cors",
        action="append",
        type=utf8,
        default=[],
        metavar="ORIGIN",
        help="origin whose pages may use the API, such as http://localhost:3000, or '*' "
        "(repeatable; default: none)",
    )
    group.add_argument(
        "--max-rows",
        type=integer(1, 256),
        metavar="N",
        help=f"texts that are generated at once (default: {_ROWS})",
    )
    group.add_argument(
        "--max-queue",
        type=integer(0, 65536),
        metavar="N",
        help="texts that wait for a place; further requests are answered with status 429 "
        f"(default: {_QUEUE})",
    )
    group.add_argument(
        "--no-stop",
        action="store_true",
        help="let the stop texts of generation_config.json be no default of requests",
    )
    add_weights(group)


def check_options(args: argparse.Namespace) -> None:
    """Ends the program with status 2 if options of page and API are mixed."""
    if args.api is None:
        for option, absent in _ONLY_API.items():
            if getattr(args, option[2:].replace("-", "_")) != absent:
                args.error(f"{option} needs --api")
    elif args.model or args.site:
        args.error("--model and --site are options of the page: leave them out with --api")
    elif args.api_key == "":
        args.error("--api-key is empty: give a key, or leave it out")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the server until Ctrl-C or SIGTERM; returns the exit status."""
    try:
        from gpt2_wgpu.server import http_server
        from gpt2_wgpu.server.api_app import create_app
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("starlette", "uvicorn"):
            raise
        raise DependencyError(
            f"serve --api needs the package {package}: pip install 'gpt2-wgpu[server]'"
        ) from None
    host = args.host or "127.0.0.1"
    api_key = args.api_key or os.environ.get(_KEY) or None
    with http_server.bind(host, args.port) as bound:  # the port first: loading takes a while
        port = bound.getsockname()[1]
        if not (local := _is_local(host)) and api_key is None:
            terminal.warn("anyone who can reach this machine can use the API: give --api-key")

        use_adapter(args)
        args.model = args.api or default_model()
        with load_model(args, terminal) as lm:
            if args.no_stop:
                lm.generation_limits.pop("stop_texts", None)
            app = create_app(
                lm,
                args.model,
                max_rows=_ROWS if args.max_rows is None else args.max_rows,
                max_queue=_QUEUE if args.max_queue is None else args.max_queue,
                api_key=api_key,
                cors=args.cors,
                hosts=_LOCAL | {host} if local else None,
            )

            def started() -> None:
                shown = f"[{host}]" if ":" in host else "localhost" if local else host
                terminal.write(f"http://{shown}:{port}/v1\n")
                terminal.info(f"serving {args.model} on {lm.device.info.name}; Ctrl-C to stop")

            http_server.run(app, bound, started)
    terminal.end_line()
    return 0


def _is_local(host: str) -> bool:
    """Returns whether an address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
