"""The command `gpt2-wgpu convert`: writes a checkpoint in another weight format."""

from __future__ import annotations

import argparse

from gpt2_wgpu.cli.options import Parser, add_adapter, file_path, use_adapter
from gpt2_wgpu.cli.terminal import Terminal, ending_by_signals
from gpt2_wgpu.weight_formats import OPTIONS

_EPILOG = """\
Matrices are rounded on the GPU as `generate --dtype` does at load: the same
numbers, a smaller file, a faster start. q8 and q4 are read by gpt2-wgpu only;
f16 and f32 by any program that reads the original.

examples:
  gpt2-wgpu convert path/to/gpt2 gpt2-q8 --dtype q8
  gpt2-wgpu generate -m gpt2-q8 "Once upon a time"
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `convert` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "convert",
        help="convert a model to another weight format",
        description="Writes the model SRC into the directory DST with its matrices converted;\n"
        "config and tokenizer are copied.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SRC", help="model to convert, as --model of `generate`")
    parser.add_argument("destination", metavar="DST", type=file_path, help="directory to write")
    parser.add_argument("--dtype", choices=OPTIONS, required=True, help="target weight format")
    add_adapter(parser)
    parser.add_argument("--force", action="store_true", help="overwrite existing files in DST")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress or sizes on stderr")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    import gpt2_wgpu as gw

    use_adapter(args)
    with ending_by_signals(), terminal.progress(f"converting {args.source}") as on_progress:
        path = gw.convert(
            args.source,
            args.destination,
            OPTIONS[args.dtype],
            force=args.force,
            on_progress=on_progress,
        )
    terminal.info(f"wrote {path} ({path.stat().st_size / 2**20:,.1f} MiB)")
    return 0
