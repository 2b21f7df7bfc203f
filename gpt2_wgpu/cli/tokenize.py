"""The command `gpt2-wgpu tokenize`: ids and tokens of a text, and back."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from gpt2_wgpu.cli.model_options import add_model_name
from gpt2_wgpu.cli.options import Parser, file_path, utf8
from gpt2_wgpu.cli.sampling_options import add_allowed_special, allowed_special
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.cli.text_input import is_terminal, read_text
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import escaped, shown

_EPILOG = """\
Only the tokenizer of the model is loaded, without a GPU.
No start token is added.

examples:
  gpt2-wgpu tokenize "Once upon a time"
  gpt2-wgpu tokenize --ids < tale.txt | wc -w
  gpt2-wgpu tokenize --decode 2267 695 258 517
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `tokenize` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "tokenize",
        help="print the tokens of a text, or the text of ids",
        description="Prints id and text of each token of TEXT, a token per line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "text",
        nargs="*",
        type=utf8,
        metavar="TEXT",
        help="the text, or with --decode the ids (default: standard input)",
    )
    parser.add_argument(
        "-f",
        "--file",
        type=file_path,
        metavar="FILE",
        help="file of the text, without a final newline",
    )
    add_model_name(parser)
    add_allowed_special(parser, "the text")
    parser.add_argument("--decode", action="store_true", help="print the text of ids")
    parser.add_argument("--ids", action="store_true", help="print the ids alone, on one line")
    parser.add_argument(
        "--json", action="store_true", help='print one object {"text", "token_ids", "tokens"}'
    )
    parser.set_defaults(error=parser.error)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    if args.decode and (args.ids or args.allowed_special):
        args.error("--decode prints a text: omit --ids and --allowed-special")
    text = _input(args)
    ids: list[int] = []
    if args.decode:
        with _usage_errors(args):
            ids = _ids(text)

    import gpt2_wgpu as gw

    with terminal.progress(f"loading {args.model}"):
        tokenizer = gw.GPT2Tokenizer.from_preset(args.model)
    if args.decode:
        with _usage_errors(args):
            text = tokenizer.decode(ids)
    else:
        ids = tokenizer.encode(text, **allowed_special(args.allowed_special))
    if args.json:
        tokens = [tokenizer.id_to_token(token) for token in ids]
        found: dict[str, Any] = {"text": text, "token_ids": ids, "tokens": tokens}
        terminal.write(json.dumps(found, ensure_ascii=False) + "\n")
    elif args.decode:
        terminal.write(text)
        terminal.end_line()
    elif args.ids:
        terminal.write(" ".join(map(str, ids)) + "\n")
    else:
        width = len(str(max(ids, default=0)))
        terminal.write("".join(f"{i:{width}}  {_piece(tokenizer, i)}\n" for i in ids))
    return 0


@contextlib.contextmanager
def _usage_errors(args: argparse.Namespace) -> Iterator[None]:
    """Makes an error of an id that is an argument, not of a file, one of usage (status 2)."""
    try:
        yield
    except InvalidArgumentError as error:
        if args.text:
            args.error(str(error))
        raise


def _input(args: argparse.Namespace) -> str:
    if args.text and args.file is not None:
        args.error("give TEXT or --file, not both")
    if len(args.text) > 1 and not args.decode:
        args.error("put a text of several words in quotes")
    if args.text:
        return " ".join(args.text)
    if args.file is None and is_terminal():
        args.error("give TEXT, --file or standard input")
    return read_text(args.file)


def _ids(text: str) -> list[int]:
    """Returns the ids of a list in any usual form: "1 2", "1,2" or "[1, 2]"."""
    words = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip())
    if words == [""]:
        return []
    if wrong := [word for word in words if not re.fullmatch(r"\d{1,9}", word, re.ASCII)]:
        raise InvalidArgumentError(
            f"{shown(wrong[0])} is no id: --decode takes ids such as 2267 695"
        )
    return [int(word) for word in words]


def _piece(tokenizer: Any, token: int) -> str:
    """Returns the text of a token in quotes; of a part of a character, its bytes."""
    data = tokenizer.token_bytes(token)
    try:
        return escaped(json.dumps(data.decode(), ensure_ascii=False))
    except UnicodeDecodeError:
        return str(data)
