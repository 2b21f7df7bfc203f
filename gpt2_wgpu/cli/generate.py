"""The command `gpt2-wgpu generate`: continues a prompt and streams the text."""

from __future__ import annotations

import argparse
import secrets
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.draft_options import add_draft, load_draft
from gpt2_wgpu.cli.model_options import add_model, load_model
from gpt2_wgpu.cli.options import Parser, file_path, integer, use_adapter, utf8
from gpt2_wgpu.cli.sampling_options import (
    add_ending,
    add_sampling,
    allowed_special,
    compile_model,
    note_what_is_ignored,
    settings_of,
    stop_texts,
)
from gpt2_wgpu.cli.stream_printer import StreamPrinter
from gpt2_wgpu.cli.terminal import INTERRUPTED, Terminal
from gpt2_wgpu.cli.text_input import is_terminal, read_text
from gpt2_wgpu.sampling_parameters import MAX_TOP_LOGPROBS

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_EPILOG = """\
models:
  fairytales                  embedded: 7 M parameters, trained on fairy tales
  path/to/directory           in Hugging Face's format: config.json, safetensors
                              weights, and tokenizer.json or vocab.json +
                              merges.txt
  path/to/model.keras         saved by KerasHub; needs gpt2-wgpu[keras]
  gpt2_base_en, gpt2_medium_en, ...
  owner/name                  from the Hugging Face Hub, as the names above;
  hf://owner/name@revision    needs the extra gpt2-wgpu[hub]

examples:
  gpt2-wgpu generate "Once upon a time"
  gpt2-wgpu generate --greedy -n 40 "The king had three sons"
  gpt2-wgpu generate --temp 1.1 --seed 7 --stop "The End" "The wolf"
  gpt2-wgpu generate -f beginning.txt -n -1
  echo "The fox said" | gpt2-wgpu generate -q > tale.txt
  gpt2-wgpu generate --json "Once" | jq -j '.text // empty'
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `generate` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "generate",
        help="generate text from a prompt",
        description="Generates text that continues PROMPT, printed as it is computed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.quoting = "put a prompt of several words in quotes"
    parser.add_argument(
        "prompt",
        nargs="?",
        type=utf8,
        metavar="PROMPT",
        help="text to continue; '-', or no PROMPT with a pipe, reads standard input without its "
        "final newline; an empty prompt starts a new text",
    )
    parser.add_argument(
        "-p",
        "--prompt",
        dest="prompt_option",
        type=utf8,
        metavar="TEXT",
        help="the prompt as an option, taken as it is",
    )
    parser.add_argument(
        "-f",
        "--file",
        type=file_path,
        metavar="FILE",
        help="file of the prompt, without its final newline",
    )
    add_model(parser)
    add_sampling(parser)
    add_draft(parser)
    add_ending(parser)
    _add_output(parser)
    parser.set_defaults(error=parser.error)
    return parser


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json",
        action="store_true",
        help='one object per token {"token", "text"}, then one of statistics {"done": true, ...}; '
        'text flushed after the last token has "token": null; with --no-stream a single object',
    )
    group.add_argument(
        "--logprobs",
        type=integer(0, MAX_TOP_LOGPROBS),
        metavar="N",
        help="with --json: add to the last object the log-probability of each token by the model, "
        "before penalties and temperature, and its N most likely alternatives",
    )
    group.add_argument("--no-stream", action="store_true", help="print the whole text at the end")
    group.add_argument("--no-echo", action="store_true", help="do not print the prompt")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, warnings or statistics on stderr"
    )
    group.add_argument("--memory", action="store_true", help="report peak GPU memory by kind")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    terminal.quiet = args.quiet
    if args.logprobs is not None and not args.json:
        args.error("--logprobs needs --json: they are printed in its last object")
    prompt = _read_prompt(args, terminal)
    if args.no_start_token and not prompt:
        terminal.info("--no-start-token has no effect: a text without a prompt begins with it")

    import gpt2_wgpu as gw

    use_adapter(args)
    peak = _watch_memory(gw.default_device()) if args.memory else None
    draft = load_draft(args, terminal)
    lm = load_model(args, terminal)
    settings = settings_of(args, lm)
    if settings["seed"] is None:
        settings["seed"] = secrets.randbelow(2**31)
    is_random = note_what_is_ignored(args, settings, terminal)
    compile_model(lm, args, settings, draft)
    terminal.waiting("compiling kernels")
    cancellation = gw.Cancellation()
    with lm.stream(
        prompt,
        top_logprobs=args.logprobs,
        max_new_tokens=settings["max_new_tokens"],
        stop_texts=stop_texts(args),
        time_limit=args.time_limit,
        cancellation=cancellation,
        add_start_token=not args.no_start_token,
        **allowed_special(args.allowed_special),
    ) as stream:
        printer = StreamPrinter(
            stream,
            prompt,
            terminal,
            json=args.json,
            echo=not args.no_echo,
            cancellation=cancellation,
        )
        printer.run(at_once=args.no_stream)
    adapter = lm.device.info
    seed = settings["seed"] if is_random else None
    figures = {"model": args.model, "adapter": adapter.name, "seed": seed}
    if args.logprobs is not None:
        figures["logprobs"] = _logprobs(lm, stream, args.logprobs)
    printer.report(figures | ({} if peak is None else {"memory": peak}))
    if peak is not None:
        parts = [f"{kind} {nbytes / 2**20:.1f} MiB" for kind, nbytes in peak.items()]
        terminal.info(f"peak GPU memory: {', '.join(parts)}")
    if adapter.is_software and not any(adapter.name in line for line in terminal.warned):
        terminal.info(
            f"no GPU is used: {adapter.name} runs on the CPU. If this machine has a GPU, "
            "install its driver"
        )
    return INTERRUPTED if printer.interrupted else 0


def _logprobs(lm: gw.GPT2CausalLM, stream: gw.TextStream, top: int) -> list[dict[str, Any]]:
    """Returns the log-probability of each new token, with its `top` most likely alternatives."""
    assert lm.preprocessor is not None
    decode = lm.preprocessor.tokenizer.decode_shown

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"token": token, "text": decode([token]), "logprob": round(logprob, 6)}

    details = stream.details(top)
    rows = zip(details.token_ids, details.logprobs, details.top_logprobs, strict=True)
    return [
        entry(token, logprob) | {"top_logprobs": [entry(*each) for each in best.items()]}
        for token, logprob, best in rows
    ]


def _watch_memory(device: gw.Device) -> dict[str, int]:
    """Peak bytes in use, in total and by kind at that moment; updated from now on."""
    peak = {"total": 0}

    def look(live: dict[str, int]) -> None:
        if (total := sum(live.values())) > peak["total"]:
            peak.update(live, total=total)

    device.memory.observer = look
    return peak


def _read_prompt(args: argparse.Namespace, terminal: Terminal) -> str:
    """Returns the prompt: of an argument, a file, or standard input."""
    given = [each for each in (args.prompt, args.prompt_option, args.file) if each is not None]
    if len(given) > 1:
        args.error("give one prompt: PROMPT, --prompt or --file")
    if args.file is not None:
        prompt = read_text(args.file)
    elif args.prompt == "-" or (not given and not is_terminal()):
        prompt = read_text()
    else:
        prompt = given[0] if given else ""
    if not prompt:
        terminal.info("no prompt: starting a new text")
    return prompt
