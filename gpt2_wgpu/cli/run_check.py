"""The command `gpt2-wgpu replay`: generates a saved run again and compares the tokens."""

from __future__ import annotations

import argparse
import json

from gpt2_wgpu.cli.options import Parser, add_adapter, file_path, use_adapter
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.shown import escaped, shown

_EPILOG = """\
FILE is what the page's button "Save run" wrote: model, tokens, samplers, seeds.
A model from an address, or of a folder, whose name alone is in FILE, is given
by --model; a digest in FILE says whether the weights are the same.
The formats of weights and of keys and values are those of the run. Each part
is generated after the recorded tokens before it.

Exit status: 0 all tokens are equal, 1 some differ (or the weights do, or FILE
is no run), 2 wrong usage.

examples:
  gpt2-wgpu replay run.json
  gpt2-wgpu replay run.json --model path/to/checkpoint
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `replay` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "replay",
        help="generate a run that the page saved again, and compare",
        description="Generates the text of a saved run again and says where it first differs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=file_path, metavar="FILE", help="file of the run")
    parser.add_argument("-m", "--model", metavar="MODEL", help="model to load (default: the run's)")
    add_adapter(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    import gpt2_wgpu as gw

    saved = gw.SavedRun.load(args.file)
    use_adapter(args)
    model = args.model or saved.model
    try:
        with terminal.progress(f"loading {escaped(model)}") as on_progress:
            lm = gw.GPT2CausalLM.from_preset(
                model, dtype=saved.dtype, on_progress=on_progress, cache_dtype=saved.cache_dtype
            )
    except PresetError as error:
        if args.model is not None:
            raise
        raise PresetError(
            f"the model of the run, {shown(model)}, is not found: give its directory or hub id "
            f"with --model ({error})"
        ) from None
    assert lm.preprocessor is not None  # a model of files has one
    decode = lm.preprocessor.tokenizer.decode
    checks = saved.replay(lm)
    for number, check in enumerate(checks, 1):
        count = check.part.end - check.part.start
        if check.differs_at is None:
            terminal.write(f"part {number}: {count} of {count} tokens are equal\n")
            continue
        recorded = saved.token_ids[check.differs_at]
        now = (
            "the end"
            if check.token_id is None
            else _named(check.token_id, decode([check.token_id]))
        )
        terminal.write(
            f"part {number}: token {check.differs_at - check.part.start + 1} of {count} differs: "
            f"recorded {_named(recorded, decode([recorded]))}, now {now}\n"
        )
    return int(any(check.differs_at is not None for check in checks))


def _named(token: int, text: str) -> str:
    return f"{token} {escaped(json.dumps(text, ensure_ascii=False))}"
