"""The command `gpt2-wgpu bench`: measures generation speed and bandwidth utilisation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from gpt2_wgpu.cli.model_options import add_cache_dtype, default_model
from gpt2_wgpu.cli.options import Parser, add_adapter, integer, use_adapter
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weight_formats import OPTIONS

if TYPE_CHECKING:
    from gpt2_wgpu.bench import Preset, RandomModel

T = TypeVar("T")
_BUSY = 0.25  # cores kept busy by other programs, above which a warning is printed

_EPILOG = """\
Every run must generate the same tokens as the forward pass without a cache; if
one differs, no speed is reported and the exit status is 1. Results go to
standard output, progress to standard error. docs/benchmarks.md explains the
columns and common measurement errors.

examples:
  gpt2-wgpu bench
  gpt2-wgpu bench --random 124M --dtype f32,f16 -b 1,8
  gpt2-wgpu bench -m path/to/checkpoint -p 512 -n 64 --positions
  gpt2-wgpu bench -o json > result.json
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `bench` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "bench",
        help="measure generation speed, after checking the tokens",
        description="Measures prefill and decode speed, and the share of peak read bandwidth used.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_work(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        choices=("md", "json"),
        default="md",
        help="tables in Markdown, or one JSON object (default: %(default)s)",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser


def _add_work(parser: Parser) -> None:
    group = parser.add_argument_group("workload")
    model = group.add_mutually_exclusive_group()
    model.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="model to load, as for `generate`",
    )
    model.add_argument(
        "--random",
        type=_shape,
        metavar="SHAPE",
        help="random weights instead of a model: 124M, 355M, 774M or 1558M (GPT-2's sizes), or "
        "LAYERSxWIDTH",
    )
    group.add_argument(
        "-p",
        "--prompt-tokens",
        type=integer(1),
        default=128,
        metavar="N",
        help="prompt length in tokens (default: %(default)s)",
    )
    group.add_argument(
        "-n",
        "--new-tokens",
        type=integer(2),
        default=128,
        metavar="N",
        help="tokens to generate (default: %(default)s)",
    )
    group.add_argument(
        "-b",
        "--batch",
        type=each_of(integer(1, 2**16 - 1)),
        default=[1],
        metavar="N[,N]",
        help="batch sizes, one table row each (default: 1)",
    )
    group.add_argument(
        "--dtype",
        type=each_of(dtype),
        default=[None],
        metavar="TYPE[,TYPE]",
        help=f"weight formats: {', '.join(OPTIONS)} (default: that of `generate`)",
    )
    add_cache_dtype(group)
    add_adapter(group)
    group.add_argument(
        "-r",
        "--repeats",
        type=integer(1),
        default=5,
        metavar="N",
        help="timed runs after one warm-up run; the median is reported (default: %(default)s)",
    )
    group.add_argument(
        "--positions",
        action="store_true",
        help="also report the time per token at several context positions",
    )
    group.add_argument(
        "--inspection",
        action="store_true",
        help="also report the times of odds after an edit, attention, logit lens and details",
    )


def dtype(text: str) -> str:
    """The library's name of a weight format."""
    if text not in OPTIONS:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not a weight format (choose from {', '.join(OPTIONS)})"
        )
    return OPTIONS[text]


def each_of(parse: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Makes a type for comma-separated lists, without duplicates."""

    def parse_all(text: str) -> list[T]:
        return list(dict.fromkeys(parse(part) for part in text.split(",")))

    return parse_all


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    from gpt2_wgpu import bench

    use_adapter(args)
    plan = bench.Plan(
        _model(args),
        args.prompt_tokens,
        args.new_tokens,
        args.batch,
        args.dtype,
        args.repeats,
        args.positions,
        args.inspection,
        OPTIONS.get(args.cache_dtype),
    )
    report = bench.measure(plan, say=terminal.info)
    if args.output == "json":
        terminal.write(json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    else:
        terminal.write(bench.as_markdown(report))
    others = report["load"]["foreign_cpu"]
    if others is not None and others > _BUSY:
        terminal.warn(
            f"other programs kept {others:.1f} cores busy, so speeds are too low and bandwidth "
            "utilisation is wrong. Measure again on an idle machine"
        )
    if report["software_adapter"]:
        terminal.info(
            f"no GPU is used: {report['hardware']} runs on the CPU, so these results say nothing "
            "about a GPU"
        )
    return 0


def _model(args: argparse.Namespace) -> Preset | RandomModel:
    from gpt2_wgpu import bench

    if args.random is None:
        return bench.Preset(default_model() if args.model is None else args.model)
    random: RandomModel = args.random
    return random


def _shape(text: str) -> RandomModel:
    from gpt2_wgpu import bench

    try:
        return bench.RandomModel.parse(text)
    except InvalidArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
