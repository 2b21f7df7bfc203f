"""The command `gpt2-wgpu list`: the models of this machine, and the presets."""

from __future__ import annotations

import argparse
import json

from gpt2_wgpu.cli.options import Parser
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.weights.local_models import local_models

_EPILOG = """\
Models of the Hub are those in huggingface_hub's cache; `hf cache` removes them.

examples:
  gpt2-wgpu list
  gpt2-wgpu list --json | jq -r '.[] | select(.available) | .name'
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `list` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "list",
        help="list the models",
        description="Lists the presets, and the GPT-2 models in the Hugging Face Hub's cache.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='print one array of objects {"name", "available", "bytes", "description"}',
    )
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    models = local_models()
    if args.json:
        objects = [
            {
                "name": model.name,
                "available": model.nbytes is not None,
                "bytes": model.nbytes,
                "description": model.description,
            }
            for model in models
        ]
        terminal.write(json.dumps(objects, ensure_ascii=False, indent=2) + "\n")
        return 0
    width = max(len(model.name) for model in models)
    terminal.write(f"{'name':<{width}}  {'on disk':>11}  description\n")
    for model in models:
        size = "-" if model.nbytes is None else f"{model.nbytes / 2**20:,.1f} MiB"
        terminal.write(f"{model.name:<{width}}  {size:>11}  {model.description}\n")
    return 0
