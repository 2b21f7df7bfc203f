"""The command `gpt2-wgpu score`: log-probabilities and perplexity of texts."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.model_options import add_model, load_model
from gpt2_wgpu.cli.options import Parser, file_path, integer, use_adapter, utf8
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.cli.text_input import is_terminal, read_text
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import escaped

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_TOGETHER = 64  # texts that are computed, then printed

_EPILOG = """\
A text is encoded like a prompt, with the start token before it, so that each of
its tokens has a probability. perplexity: exp of the mean -log p of a token.
bits/byte: sum of -log2 p divided by the bytes of the text in UTF-8, which
can be compared between tokenizers.

examples:
  gpt2-wgpu score "Once upon a time" "Time a upon once"
  gpt2-wgpu score --file book.txt
  gpt2-wgpu score --lines --json < texts.txt | jq .perplexity
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `score` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "score",
        help="print log-probabilities and perplexity of texts",
        description="Prints how probable texts are for the model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "texts",
        nargs="*",
        type=utf8,
        metavar="TEXT",
        help="texts to score (default: standard input)",
    )
    parser.add_argument(
        "-f",
        "--file",
        type=file_path,
        metavar="FILE",
        help="file of a text, without its final newline",
    )
    parser.add_argument(
        "--lines", action="store_true", help="score each line of the input or file as a text"
    )
    add_model(parser)
    parser.add_argument(
        "--stride",
        type=integer(1),
        metavar="N",
        help="step of the windows of a text that is longer than the context (default: half the "
        "context)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='one object per text {"text", "perplexity", "logprob", "bits_per_byte", "tokens"}, '
        "with the log-probability of each token",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(error=parser.error)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    texts = _texts(args)
    use_adapter(args)
    lm = load_model(args, terminal)
    context = lm.backbone.config.n_positions
    if args.stride is not None and args.stride > context:
        args.error(f"--stride {args.stride} must be <= {context}, the model's context")
    if not args.json:
        terminal.write("perplexity  tokens  bits/byte  text\n")
    for start in range(0, len(texts), _TOGETHER):
        for score in _scores(lm, texts[start : start + _TOGETHER], args.stride):
            terminal.write(_object(score) if args.json else _row(score))
    return 0


def _texts(args: argparse.Namespace) -> list[str]:
    if args.texts and (args.file is not None or args.lines):
        args.error("give texts, or --file or standard input with --lines, not both")
    if "" in args.texts:
        args.error("an empty text has no tokens to score")
    if args.texts:
        texts: list[str] = args.texts
    else:
        if args.file is None and is_terminal():
            args.error("give a text, --file or standard input")
        text = read_text(args.file)
        texts = text.split("\n") if args.lines else [text]
        if args.lines:
            texts = [line for each in texts if (line := each.removesuffix("\r"))]
    if not texts or "" in texts:
        raise InvalidArgumentError("an empty text has no tokens to score")
    return texts


def _scores(lm: gw.GPT2CausalLM, texts: list[str], stride: int | None) -> Iterator[dict[str, Any]]:
    """Yields the figures of each text."""
    assert lm.preprocessor is not None
    rows = lm.encode_prompts(texts, lm.preprocessor)
    decode = lm.preprocessor.tokenizer.decode
    for text, ids, logprobs in zip(texts, rows, lm.logprobs(rows, stride), strict=True):
        total = sum(logprobs)
        predicted = ids[len(ids) - len(logprobs) :]
        yield {
            "text": text,
            "perplexity": math.exp(-total / len(logprobs)),
            "logprob": total,
            "bits_per_byte": -total / math.log(2) / len(text.encode()),
            "tokens": [
                {"token": token, "text": decode([token]), "logprob": round(logprob, 6)}
                for token, logprob in zip(predicted, logprobs, strict=True)
            ],
        }


def _object(score: dict[str, Any]) -> str:
    rounded = {name: round(value, 6) for name, value in score.items() if isinstance(value, float)}
    return json.dumps(score | rounded, ensure_ascii=False, allow_nan=False) + "\n"


def _row(score: dict[str, Any]) -> str:
    text = " ".join(score["text"].split())
    shortened = text if len(text) <= 48 else text[:47] + "…"
    return (
        f"{score['perplexity']:10.2f}  {len(score['tokens']):6}  {score['bits_per_byte']:9.3f}  "
        f"{escaped(shortened)}\n"
    )
