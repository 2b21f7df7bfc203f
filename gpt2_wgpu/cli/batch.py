"""The command `gpt2-wgpu batch`: a text for each record of a file, continued after a kill."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from itertools import islice
from typing import Any

from gpt2_wgpu.cli.batch_state import BatchState, locked_state
from gpt2_wgpu.cli.draft_options import add_draft, load_draft
from gpt2_wgpu.cli.model_options import add_model, load_model
from gpt2_wgpu.cli.options import Parser, integer, record_path, use_adapter
from gpt2_wgpu.cli.record_files import RecordFile
from gpt2_wgpu.cli.sampling_options import (
    add_ending,
    add_sampling,
    allowed_special,
    compile_model,
    note_what_is_ignored,
    settings_of,
    stop_texts,
)
from gpt2_wgpu.cli.terminal import Terminal, recorded_interrupts
from gpt2_wgpu.errors import ContextLengthError, GPT2WGPUError, InvalidArgumentError
from gpt2_wgpu.sampling_parameters import PARAMETERS, SEED
from gpt2_wgpu.shown import listed, shown

_CHUNK = 64  # records that are written together

_EPILOG = """\
IN and OUT are JSON Lines (.jsonl, an object a line) or CSV (.csv, with a
header). A record of OUT is that of IN with a field for the text, in the same
order. If the command was interrupted or killed, run it again: it continues
after the last complete record of OUT, with the same seed. OUT.run has the
options of an unfinished run. Records are written 4 batches at a time.

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
    parser.add_argument(
        "source", metavar="IN", type=record_path, help="file of prompts, .jsonl or .csv"
    )
    parser.add_argument(
        "target", metavar="OUT", type=record_path, help="file to write, .jsonl or .csv"
    )
    add_model(parser)
    add_sampling(parser)
    add_draft(parser)
    add_ending(parser, timed=False)
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
        metavar="N",
        help="texts at once (default: as many as the free GPU memory holds, at most 256, or 64 "
        "without a GPU)",
    )
    group.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what a record does that cannot be continued, e.g. has no text as prompt or is too "
        "long: stop the job, after the texts before it, or be skipped (default: %(default)s)",
    )
    group.add_argument(
        "--error-field",
        default="error",
        metavar="NAME",
        help="field for the error of a skipped record, whose text is then empty; records of CSV "
        "all have it with --on-error skip (default: %(default)s)",
    )
    group.add_argument("--force", action="store_true", help="begin anew: overwrite OUT")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    source, target = RecordFile(args.source), RecordFile(args.target)
    exists = args.target.exists()
    if exists and args.source.exists() and args.target.samefile(args.source):
        args.error(f"OUT is IN, {args.source}: give another file")
    if args.target.is_dir():
        args.error(f"OUT is a directory, {args.target}: give a file")
    problems = [_problem(record, args) for record in _records(source, target, args)]
    total = len(problems)
    if total and all(problems):  # the wrong field
        raise InvalidArgumentError(f"record 1 of {args.source} {problems[0]}")
    if not total:
        target.append([], anew=True) if args.force or not exists else _done(source, target, args)
        terminal.info(f"{args.source} has no records: {args.target} is empty")
        return 0
    with locked_state(args.target) as state:
        _run_locked(source, target, problems, state, args, terminal)
    return 0


def _run_locked(
    source: RecordFile, target: RecordFile, problems: list[str], state: BatchState,
    args: argparse.Namespace, terminal: Terminal,
) -> None:  # fmt: skip
    total = len(problems)
    continued = args.target.exists() and not args.force
    done = _done(source, target, args) if continued else 0
    if done == total:
        state.finished = True
        terminal.info(f"{args.target} is complete: {total} records")
        return
    stored = state.check(_options(args)) if done else None
    if done:
        terminal.info(f"continuing after {done} of {total} records")
        if state.read() is None:
            terminal.warn(f"the options of the run that began {args.target} are not known")
    seed = args.seed if args.seed is not None else stored
    if seed is None:
        seed = secrets.randbelow(2**31)
    elif stored is not None and seed != stored:
        raise InvalidArgumentError(
            f"{args.target} was begun with --seed {stored}, not {seed}: omit --seed, or begin "
            "anew with --force"
        )
    if problems[done] and args.on_error == "stop":  # before the model is loaded
        raise _stop(args, done + 1, problems[done])

    import gpt2_wgpu as gw

    use_adapter(args)
    draft = load_draft(args, terminal)
    lm = load_model(args, terminal)
    settings = settings_of(args, lm)
    is_random = note_what_is_ignored(args, settings, terminal)
    if is_random:
        terminal.info(f"seed {seed}")
    compile_model(lm, args, settings, draft)
    state.write(_options(args) | {"seed": seed})
    count = done
    with (
        terminal.progress("generating", " texts") as report,
        recorded_interrupts() as interrupted,
    ):

        def add(texts: int) -> None:
            nonlocal count
            count += texts
            if report is not None:
                report(count, total)
            if interrupted():
                raise KeyboardInterrupt

        # What is not a str gets an error.
        prompts: Any = (record.get(args.prompt_field) for record in islice(source, done, None))
        texts = gw.generate_batches(
            lm,
            prompts,
            strip_prompt=True,
            batch_size=args.batch_size,
            first=done,
            on_progress=add,
            on_error=args.on_error,
            max_new_tokens=settings["max_new_tokens"],
            stop_texts=stop_texts(args),
            seed=seed if is_random else None,
            add_start_token=not args.no_start_token,
            **allowed_special(args.allowed_special),
        )
        skipped = _write(target, islice(source, done, None), texts, done, args)
    state.finished = True
    terminal.info(f"wrote {args.target} ({total} records)")
    if skipped:
        terminal.warn(f"{skipped} records were skipped: see their field {args.error_field}")


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options on which the texts depend, except the seed, for the file of the state."""
    names = [each.name for each in PARAMETERS if each is not SEED]
    names += ["model", "dtype", "adapter_weights", "greedy", "beams", "penalty_alpha", "stop"]
    names += ["no_stop", "no_start_token", "allowed_special", "prompt_field", "text_field"]
    if args.target.suffix.lower() == ".csv":  # whose records all have the same fields
        names += ["on_error", "error_field"]
    flags = {each.name: each.flags[-1] for each in PARAMETERS}
    return {flags.get(n, "--" + n.replace("_", "-")): getattr(args, n) for n in names}


def _records(
    source: RecordFile, target: RecordFile, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the records of IN; InvalidArgumentError for one that OUT could not have with a text."""
    first: dict[str, Any] = {}
    for number, record in enumerate(source, 1):
        for option in ("text_field", "error_field"):
            if (name := getattr(args, option)) in record:
                raise InvalidArgumentError(
                    f"record {number} of {source.path} has a field {shown(name)} already: "
                    f"name another with --{option.replace('_', '-')}"
                )
        first = first or record
        if target.is_csv and (differ := sorted(record.keys() ^ first.keys())):
            raise InvalidArgumentError(
                f"record {number} of {source.path} and record 1 differ in the field "
                f"{shown(differ[0])}, but records of CSV have the same fields: write a .jsonl file"
            )
        yield record


def _problem(record: dict[str, Any], args: argparse.Namespace) -> str:
    """Return why a record has no prompt; "" if it has one."""
    if args.prompt_field not in record:
        return (
            f"has no field {shown(args.prompt_field)}, only "
            f"{listed([shown(name) for name in record]) or 'none'}: see --prompt-field"
        )
    prompt = record[args.prompt_field]
    if isinstance(prompt, str):
        return ""
    return (
        f"must have a text in the field {shown(args.prompt_field)}, not {shown(prompt)}: see "
        "--prompt-field"
    )


def _stop(args: argparse.Namespace, number: int, reason: str) -> InvalidArgumentError:
    """Return the error of a record that stops the job."""
    return InvalidArgumentError(
        f"record {number} of {args.source} {reason}, or go on without it by --on-error skip"
    )


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
        prompt = expected.get(args.prompt_field)
        if target.is_csv:  # which has texts only
            prompt = "" if prompt is None else str(prompt)
        same = record.get(args.prompt_field) == prompt
        if not same or record.keys() - {args.error_field} != expected.keys():
            raise _not_ours(target, f"record {done} of {target.path}")
    if not done and data:
        begin = b""
        for record in islice(records, 1):
            # Without the end of the empty text: `"` and a newline, in JSON also `}`.
            first = record | text | ({args.error_field: ""} if _has_errors(target, args) else {})
            begin = target.encoded([first])
            begin = begin[: begin.rindex(b'""') + 1]  # up to the empty text or error
            if _has_errors(target, args):
                begin = begin[: begin[:-1].rindex(b'""') + 1]
        if not begin or not (data.startswith(begin) or begin.startswith(data)):
            raise _not_ours(target, str(target.path))
    if length < len(data):
        target.cut(length)
    return done


def _not_ours(target: RecordFile, subject: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{subject} is not of this IN: give another file as OUT, or overwrite it with --force"
    )


def _has_errors(target: RecordFile, args: argparse.Namespace) -> bool:
    """Return whether all records have the field of errors: those of CSV have the same fields."""
    return target.is_csv and args.on_error == "skip"


def _write(
    target: RecordFile, records: Iterator[dict[str, Any]], texts: Iterator[Any], done: int,
    args: argparse.Namespace,
) -> int:  # fmt: skip
    """Append each record with its text, some at a time; return the number of skipped ones.

    With --force, overwrite OUT. An error, too, comes after the texts before it.
    """
    anew, skipped, number = args.force, 0, done
    while True:
        chunk: list[dict[str, Any]] = []
        stopped: BaseException | None = None
        try:
            for text in islice(texts, _CHUNK):
                record = next(records)
                number += 1
                is_error = isinstance(text, GPT2WGPUError)
                error = (_problem(record, args) or _reason(text, number)) if is_error else ""
                skipped += bool(error)
                record = record | {args.text_field: "" if error else text}
                if error or _has_errors(target, args):
                    record[args.error_field] = error
                chunk.append(record)
        except BaseException as error_or_interrupt:  # after the records before it
            stopped = error_or_interrupt
        if chunk:
            target.append(chunk, anew=anew)
            anew = False
        if isinstance(stopped, ContextLengthError | InvalidArgumentError):
            problem = next((_problem(record, args) for record in records), "")
            raise _stop(args, number + 1, problem or _reason(stopped, number + 1))
        if stopped is not None:
            raise stopped
        if not chunk:
            return skipped


def _reason(error: GPT2WGPUError, number: int) -> str:
    """Return the message of an error without the number of the prompt, which counts from 0."""
    return str(error).removeprefix(f"prompt {number - 1}").removeprefix(":").strip()
