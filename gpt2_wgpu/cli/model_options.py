"""The options of a model, its weights and its GPU, and how a command loads it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from gpt2_wgpu.cli.options import Parser, add_adapter, utf8
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.weight_formats import CACHE_DTYPES, OPTIONS

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_MODEL = "fairytales"


def add_model_name(group: argparse._ActionsContainer) -> None:
    """Adds the option --model."""
    group.add_argument(
        "-m",
        "--model",
        default=default_model(),
        metavar="MODEL",
        help=f"model to load, see 'models' in `generate --help` (default: $GPT2_WGPU_MODEL, else "
        f"{_MODEL})",
    )


def default_model() -> str:
    """Returns the model of the environment, else the embedded one."""
    return os.environ.get("GPT2_WGPU_MODEL") or _MODEL


def add_model(parser: Parser) -> None:
    """Adds the options of the model, its weights and its adapter."""
    add_model_name(parser)
    add_weights(parser)


def add_weights(group: argparse._ActionsContainer) -> None:
    """Adds the options of the weights and the adapter of a model that is named elsewhere."""
    group.add_argument(
        "--dtype",
        choices=OPTIONS,
        help="storage format of the weights on the GPU (default: the format that `convert` wrote, "
        "else f16; without a GPU, q8 if it is measured to be faster)",
    )
    add_cache_dtype(group)
    group.add_argument(
        "--adapter-weights",
        action="append",
        type=utf8,
        metavar="DIR",
        help="directory or hub id of a LoRA adapter (PEFT) to merge into the weights (repeatable)",
    )
    add_adapter(group)


def add_cache_dtype(group: argparse._ActionsContainer) -> None:
    """Adds the option of the storage format of keys and values."""
    group.add_argument(
        "--cache-dtype",
        choices=[name for name, dtype in OPTIONS.items() if dtype in CACHE_DTYPES],
        help="storage format of keys and values (default: f16 on a GPU, f32 without one)",
    )


def load_model(args: argparse.Namespace, terminal: Terminal) -> gw.GPT2CausalLM:
    """Returns the model of the options, loaded onto the default device."""
    import gpt2_wgpu as gw

    with terminal.progress(f"loading {args.model}") as on_progress:
        return gw.GPT2CausalLM.from_preset(
            args.model,
            dtype=OPTIONS.get(args.dtype),
            on_progress=on_progress,
            cache_dtype=OPTIONS.get(args.cache_dtype),
            adapter=args.adapter_weights,
        )
