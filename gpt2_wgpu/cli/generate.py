"""`gpt2-wgpu generate`: a prompt in, the text that follows out, piece by piece."""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.options import MAX_SEED, Parser, integer, number, stop_text, utf8
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import InvalidArgumentError

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_DTYPES = {"f16": "float16", "f32": "float32"}
_REASONS = {"stop": "end of text", "length": "length", "stop_text": "stop text"}

_EPILOG = """\
models:
  fairytales                  embedded: 7 M parameters, trained on fairy tales
  path/to/directory           in Hugging Face's format: config.json,
                              model.safetensors, vocab.json and merges.txt
  gpt2_base_en, gpt2_medium_en, ...
  hf://openai-community/gpt2  from the Hugging Face Hub; both need
                              pip install 'gpt2-wgpu[hub]'

examples:
  gpt2-wgpu generate "Once upon a time"
  gpt2-wgpu generate --greedy -n 40 "The king had three sons"
  gpt2-wgpu generate --temp 1.1 --seed 7 --stop "The End" "The wolf"
  echo "The fox said" | gpt2-wgpu generate -q > tale.txt
  gpt2-wgpu generate --json "Once" | jq -j '.text // empty'
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `generate` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continues PROMPT: prints it and the text that follows as it is computed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "prompt",
        nargs="?",
        type=utf8,
        metavar="PROMPT",
        help="the text to continue; '-', or none with a pipe: standard input, less one final "
        "newline; an empty one begins a new text",
    )
    parser.add_argument(
        "-m",
        "--model",
        default="fairytales",
        metavar="MODEL",
        help="what computes, see below (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="f16", help="weights on the GPU (default: %(default)s)"
    )
    _add_sampling(parser)
    _add_ending(parser)
    _add_output(parser)
    return parser


def _add_sampling(parser: Parser) -> None:
    group = parser.add_argument_group("how a token is chosen")
    group.add_argument(
        "--temp",
        type=number(0),
        default=0.8,
        metavar="T",
        help="temperature: below 1 safer, above 1 wilder, 0 as --greedy (default: %(default)s)",
    )
    group.add_argument(
        "--top-k",
        type=integer(0),
        default=40,
        metavar="K",
        help="only among the K likeliest, 0 for all (default: %(default)s)",
    )
    group.add_argument(
        "--top-p",
        type=number(0, 1, above=True),
        default=0.95,
        metavar="P",
        help="only among the likeliest that sum to P, 1 for all (default: %(default)s)",
    )
    group.add_argument("--greedy", action="store_true", help="always the likeliest token")
    group.add_argument(
        "--seed",
        type=integer(0, MAX_SEED),
        metavar="N",
        help="repeat a run: same seed, same adapter, same text (default: a new one, shown after)",
    )


def _add_ending(parser: Parser) -> None:
    group = parser.add_argument_group("where it ends")
    group.add_argument(
        "-n",
        "--max-new-tokens",
        type=integer(1),
        default=128,
        metavar="N",
        help="after N tokens, or where the model's context ends (default: %(default)s)",
    )
    group.add_argument(
        "--stop",
        action="append",
        type=stop_text,
        default=[],
        metavar="TEXT",
        help="before TEXT would appear (repeatable)",
    )
    group.add_argument(
        "--no-start-token",
        action="store_true",
        help="do not put the model's start token before the prompt",
    )


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json",
        action="store_true",
        help='one object per token {"token", "text"}, then one of figures {"done": true, ...}; '
        "with --no-stream a single object",
    )
    group.add_argument("--no-stream", action="store_true", help="print when all is computed")
    group.add_argument("--no-echo", action="store_true", help="do not print the prompt")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, warnings or figures on stderr"
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generates as `args` says; returns the exit status."""
    terminal.quiet = args.quiet
    prompt = _read_prompt(args.prompt, terminal)
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed

    import gpt2_wgpu as gw

    with terminal.progress(f"loading {args.model}") as on_progress:
        lm = gw.GPT2CausalLM.from_preset(
            args.model, dtype=_DTYPES[args.dtype], on_progress=on_progress
        )
    if lm.device.info.is_software:
        terminal.warn(
            f"{lm.device.info.name} is a software adapter that computes on the CPU: expect slow "
            "text; with a GPU in this machine, install its driver"
        )
    lm.compile(sampler=_sampler(args, seed))
    with lm.stream(
        prompt,
        max_new_tokens=args.max_new_tokens,
        stop_texts=args.stop,
        add_start_token=not args.no_start_token,
    ) as stream:
        text = (
            _print_json(stream, args, terminal)
            if args.json
            else _print_text(stream, prompt, args, terminal)
        )
        stats = stream.stats
    figures = _figures(stats, lm.device.info.name, args, seed)
    if args.json:
        whole = {"prompt": prompt, "text": text, "token_ids": list(stats.token_ids)}
        _write_json(whole | figures if args.no_stream else figures, terminal)
    terminal.note(_summary(figures))
    return 0


def _read_prompt(prompt: str | None, terminal: Terminal) -> str:
    """Returns the text to continue: the argument, or what is piped in."""
    if prompt is None and sys.stdin is not None and sys.stdin.isatty():
        prompt = ""
    elif prompt is None or prompt == "-":
        piped = sys.stdin.buffer.read() if sys.stdin is not None else b""
        try:
            prompt = piped.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"standard input is not valid UTF-8: byte {piped[error.start]:#04x} at "
                f"{error.start}; convert it, or give the prompt as an argument"
            ) from None
        # `echo` and editors end a text with a newline that nobody means to be continued.
        prompt = prompt.removesuffix("\n").removesuffix("\r")
    if not prompt:
        terminal.note("no prompt: beginning a new text")
    return prompt


def _sampler(args: argparse.Namespace, seed: int) -> gw.samplers.Sampler:
    from gpt2_wgpu import samplers

    if args.greedy or args.temp == 0:
        return samplers.Greedy()
    if args.top_p < 1:
        return samplers.TopP(p=args.top_p, k=args.top_k or None, temperature=args.temp, seed=seed)
    if args.top_k:
        return samplers.TopK(k=args.top_k, temperature=args.temp, seed=seed)
    return samplers.Random(temperature=args.temp, seed=seed)


def _print_text(
    stream: gw.TextStream, prompt: str, args: argparse.Namespace, terminal: Terminal
) -> str:
    """Prints prompt and text as one; returns the text."""
    pieces = ["".join(stream)] if args.no_stream else stream
    if not args.no_echo:
        terminal.write(prompt, bold=True)
    text = ""
    for piece in pieces:
        terminal.write(piece)
        text += piece
    terminal.end_line()
    return text


def _print_json(stream: gw.TextStream, args: argparse.Namespace, terminal: Terminal) -> str:
    """Prints one object per token as it comes, unless --no-stream; returns the text.

    Tokens that end inside a character have the text ""; the one that completes it has it all.
    """
    text = ""
    for piece in stream:
        text += piece
        if args.no_stream:
            continue
        # A text held back as the possible beginning of a stop text may come without a token.
        tokens: list[int | None] = [*stream.last_token_ids] or [None]
        *silent, last = tokens
        for token in silent:
            _write_json({"token": token, "text": ""}, terminal)
        _write_json({"token": last, "text": piece}, terminal)
    return text


def _write_json(value: dict[str, Any], terminal: Terminal) -> None:
    terminal.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _figures(
    stats: gw.StreamStats, adapter: str, args: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """What is reported of a finished run; a figure that could not be measured is None."""
    greedy = args.greedy or args.temp == 0
    return {
        "done": True,
        "reason": stats.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "tokens": stats.new_tokens,
        "seconds_to_first_token": _measured(stats.seconds_to_first_token, 4),
        "tokens_per_second": _measured(stats.tokens_per_second, 2),
        "model": args.model,
        "adapter": adapter,
        "seed": None if greedy else seed,
    }


def _measured(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None


def _summary(figures: dict[str, Any]) -> str:
    """The figures of a run in one line."""
    parts = [
        f"{figures['model']} on {figures['adapter']}",
        f"{figures['prompt_tokens']} + {figures['tokens']} tokens",
    ]
    if (seconds := figures["seconds_to_first_token"]) is not None:
        parts.append(f"first token {seconds:.2f} s")
    if (rate := figures["tokens_per_second"]) is not None:
        parts.append(f"{rate:.1f} tokens/s")
    parts.append(f"ended by {_REASONS.get(figures['reason'], figures['reason'])}")
    if figures["seed"] is not None:
        parts.append(f"seed {figures['seed']}")
    return " · ".join(parts)
