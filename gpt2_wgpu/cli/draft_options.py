"""The options of a draft model (speculative decoding), and how a command loads it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gpt2_wgpu.cli.options import Parser, integer
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.sampling_parameters import MAX_DRAFT
from gpt2_wgpu.weight_formats import OPTIONS

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_TOKENS = 5


def add_draft(parser: Parser) -> None:
    """Adds the options of a draft model."""
    parser.set_defaults(error=parser.error)
    group = parser.add_argument_group("speculative decoding")
    group.add_argument(
        "--draft-model",
        "--model-draft",
        metavar="MODEL",
        help="small model that drafts tokens, which one step of the model verifies: the same text, "
        "faster where the model is much larger; it needs the tokens of the model",
    )
    group.add_argument(
        "--num-speculative-tokens",
        "--draft-max",
        type=integer(1, MAX_DRAFT),
        metavar="N",
        help=f"length of the drafts (default: {_TOKENS})",
    )
    group.add_argument(
        "--draft-dtype",
        choices=OPTIONS,
        help="storage format of the weights of the draft model (default: as for --dtype)",
    )


def load_draft(args: argparse.Namespace, terminal: Terminal) -> gw.GPT2CausalLM | None:
    """Returns the draft model of the options, loaded onto the default device; None without one."""
    import gpt2_wgpu as gw

    if args.draft_model is None:
        for name in ("num_speculative_tokens", "draft_dtype"):
            if getattr(args, name) is not None:
                args.error(f"--{name.replace('_', '-')} needs --draft-model")
        return None
    with terminal.progress(f"loading {args.draft_model}") as on_progress:
        return gw.GPT2CausalLM.from_preset(
            args.draft_model,
            dtype=OPTIONS.get(args.draft_dtype),
            on_progress=on_progress,
            cache_dtype=OPTIONS.get(args.cache_dtype),
            adapter=None,
        )


def draft_length(args: argparse.Namespace) -> int:
    """Returns the number of tokens of a draft."""
    return args.num_speculative_tokens or _TOKENS
