"""The command `gpt2-wgpu batch`: a text for each record of a file, continued after a kill."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2_wgpu.cli.model_options import add_model, load_model
from gpt2_wgpu.cli.options import Parser, integer, use_adapter
from gpt2_wgpu.cli.record_files import RecordFile
from gpt2_wgpu.cli.sampling_options import (
    add_ending,
    add_sampling,
    allowed_special,
    compile_model,
    note_what_is_ignored,
    settings_of,
)
from gpt2_wgpu.cli.terminal import Terminal, recorded_interrupts
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown

_EPILOG = """\
IN and OUT are JSON Lines (.jsonl, an object a line) or CSV (.csv, with a
header). A record of OUT is that of IN with a field for the text, in the same
order. If the command was interrupted or killed, run it again: it continues
after the last complete record of OUT. Records are written 4 batches at a time.

examples:
  gpt2-wgpu batch prompts.jsonl texts.jsonl
  gpt2-wgpu batch -n 40 --seed 1 --prompt-field beginning tales.csv texts.jsonl
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `batch` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "batch",
        help="generate a text for each record of a file",
        description="Writes the records of IN to OUT, each with a text that continues its prompt.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", type=Path, help="file of prompts, .jsonl or .csv")
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write, .jsonl or .csv")
    add_model(parser)
    add_sampling(parser)
    add_ending(parser)
    group = parser.add_argument_group("records")
    group.add_argument(
        "--prompt-field",
        default="prompt",
        metavar="NAME",
        help="field of the prompts (default: %(default)s)",
    )
    group.add_argument(
        "--text-field",
        default="text",
        metavar="NAME",
        help="field for the texts, which IN does not have (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=integer(1, 1 << 16),
        default=64,
        metavar="N",
        help="texts at once; halved where they exceed the GPU memory (default: %(default)s)",
    )
    group.add_argument("--force", action="store_true", help="begin anew: overwrite OUT")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    source, target = RecordFile(args.source), RecordFile(args.target)
    total = sum(1 for _ in _records(source, target, args))
    exists = args.target.exists()
    if exists and args.target.samefile(args.source):
        raise InvalidArgumentError(f"OUT is IN, {args.source}: give another file")
    if args.target.is_dir():
        raise InvalidArgumentError(f"OUT is a directory, {args.target}: give a file")
    done = _done(source, target, args) if exists and not args.force else 0
    if done == total:
        if exists and args.force:  # IN has no records
            target.cut(0)
        terminal.info(f"{args.target} is complete: {total} records")
        return 0
    if done:
        terminal.info(f"continuing after {done} of {total} records")
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed

    import gpt2_wgpu as gw

    use_adapter(args)
    lm = load_model(args, terminal)
    settings = settings_of(args, lm)
    is_random = note_what_is_ignored(args, settings, terminal)
    if is_random:
        terminal.info(f"seed {seed}")  # before the texts: a killed run may be continued with it
    compile_model(lm, args, settings)
    with (
        terminal.progress("generating", " texts") as report,
        recorded_interrupts() as interrupted,
    ):

        def add(count: int) -> None:
            nonlocal done
            done += count
            if report is not None:
                report(done, total)
            if interrupted():
                raise KeyboardInterrupt

        texts = gw.generate_batches(
            lm,
            (record[args.prompt_field] for record in islice(source, done, None)),
            strip_prompt=True,
            batch_size=args.batch_size,
            first=done,
            on_progress=add,
            max_new_tokens=settings["max_new_tokens"],
            stop_texts=args.stop,
            seed=seed if is_random else None,
            add_start_token=not args.no_start_token,
            **allowed_special(args.allowed_special),
        )
        _write(target, islice(source, done, None), texts, args)
    terminal.info(f"wrote {args.target} ({total} records)")
    return 0


def _records(
    source: RecordFile, target: RecordFile, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the records of IN; InvalidArgumentError for one that OUT could not have with a text."""
    first: dict[str, Any] = {}
    for number, record in enumerate(source, 1):
        prompt = record.get(args.prompt_field)
        if not isinstance(prompt, str):
            raise InvalidArgumentError(
                f"record {number} of {source.path} must have a text in the field "
                f"{shown(args.prompt_field)}, not {shown(prompt)}: see --prompt-field"
            )
        if args.text_field in record:
            raise InvalidArgumentError(
                f"record {number} of {source.path} has a field {shown(args.text_field)} already: "
                "name another with --text-field"
            )
        first = first or record
        if target.is_csv and (differ := sorted(record.keys() ^ first.keys())):
            raise InvalidArgumentError(
                f"record {number} of {source.path} and record 1 differ in the field "
                f"{shown(differ[0])}, but records of CSV have the same fields: write a .jsonl file"
            )
        yield record


def _done(source: RecordFile, target: RecordFile, args: argparse.Namespace) -> int:
    """Return the number of records of an earlier run, after removing an incomplete one.

    OUT must be of this IN; otherwise it is not changed.
    """
    found, data, length = target.complete()
    done, records = 0, _records(source, target, args)
    text = {args.text_field: ""}
    for record in found:
        done += 1
        expected = next(records, {}) | text
        same = record.get(args.prompt_field) == expected.get(args.prompt_field)
        if not same or record.keys() != expected.keys():
            raise _not_ours(target, f"record {done} of {target.path}")
    if not done and data:
        begin = b""
        for record in islice(records, 1):
            # Without the end of the empty text: `"` and a newline, in JSON also `}`.
            begin = target.encoded([record | text])[: -2 if target.is_csv else -3]
        if not begin or not (data.startswith(begin) or begin.startswith(data)):
            raise _not_ours(target, str(target.path))
    if length < len(data):
        target.cut(length)
    return done


def _not_ours(target: RecordFile, subject: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{subject} is not of this IN: give another file as OUT, or overwrite it with --force"
    )


def _write(
    target: RecordFile, records: Iterator[dict[str, Any]], texts: Iterator[str],
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Append each record with its text, ``batch_size`` at a time; with --force, overwrite OUT."""
    anew = args.force
    while chunk := [
        record | {args.text_field: text}
        for text, record in zip(islice(texts, args.batch_size), records, strict=False)
    ]:
        target.append(chunk, anew=anew)
        anew = False
