"""The command `gpt2-wgpu generate`: continues a prompt and streams the text."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.options import (
    Parser,
    add_adapter,
    in_range,
    integer,
    stop_text,
    use_adapter,
    utf8,
)
from gpt2_wgpu.cli.stream_printer import StreamPrinter
from gpt2_wgpu.cli.terminal import INTERRUPTED, Terminal
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.sampling_parameters import (
    COMMON_PARAMETERS,
    MAX_BEAMS,
    MAX_NEW_TOKENS,
    MAX_TOP_LOGPROBS,
    SAMPLER_PARAMETERS,
    Parameter,
    with_defaults,
)
from gpt2_wgpu.weight_formats import OPTIONS

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_EPILOG = """\
models:
  fairytales                  embedded: 7 M parameters, trained on fairy tales
  path/to/directory           in Hugging Face's format: config.json, safetensors
                              weights, and tokenizer.json or vocab.json +
                              merges.txt
  gpt2_base_en, gpt2_medium_en, ...
  owner/name                  from the Hugging Face Hub, as the names above;
  hf://owner/name@revision    needs the extra gpt2-wgpu[hub]

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
    add_model(parser)
    add_sampling(parser)
    add_ending(parser)
    _add_output(parser)
    parser.set_defaults(error=parser.error)
    return parser


def add_model(parser: Parser) -> None:
    """Adds the options of the model, its weights and its adapter."""
    parser.add_argument(
        "-m",
        "--model",
        default="fairytales",
        metavar="MODEL",
        help="model to load, see 'models' in `generate --help` (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=OPTIONS,
        help="storage format of the weights on the GPU (default: the format that `convert` wrote, "
        "else f16; without a GPU, q8 if it is measured to be faster)",
    )
    parser.add_argument(
        "--adapter-weights",
        action="append",
        type=utf8,
        metavar="DIR",
        help="directory of a LoRA adapter in PEFT's format to merge into the weights (repeatable)",
    )
    add_adapter(parser)


def add_sampling(parser: Parser) -> None:
    """Adds the options of the sampler."""
    group = parser.add_argument_group(
        "sampling options",
        "generation_config.json takes precedence over these defaults and that of -n.",
    )
    for parameter in SAMPLER_PARAMETERS:
        _add_parameter(group, parameter)
    group.add_argument("--greedy", action="store_true", help="always take the most likely token")
    group.add_argument(
        "--beams",
        type=integer(1, MAX_BEAMS),
        metavar="N",
        help="beam search with N beams: the whole text is printed at the end, and the options "
        "above have no effect",
    )


def _add_parameter(group: argparse._ActionsContainer, parameter: Parameter) -> None:
    group.add_argument(
        *parameter.flags,
        dest=parameter.name,
        type=in_range(parameter.range),
        metavar=parameter.metavar,
        help=f"{parameter.help} (default: {parameter.described_default('with --greedy')})",
    )


def add_ending(parser: Parser) -> None:
    """Adds the options of the ends of prompt and text."""
    group = parser.add_argument_group("stopping")
    _add_parameter(group, MAX_NEW_TOKENS)
    group.add_argument(
        "--stop",
        action="append",
        type=stop_text,
        default=[],
        metavar="TEXT",
        help="stop before TEXT would appear (repeatable)",
    )
    group.add_argument(
        "--no-start-token",
        action="store_true",
        help="do not put the model's start token before the prompt",
    )
    group.add_argument(
        "--allowed-special",
        action="append",
        type=utf8,
        default=[],
        metavar="TOKEN",
        help="special token to recognise in the prompt, such as '<|endoftext|>', or 'all' "
        "(repeatable; default: none, they are plain text)",
    )


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
    prompt = _read_prompt(args.prompt, terminal)
    if args.no_start_token and not prompt:
        terminal.info("--no-start-token has no effect: a text without a prompt begins with it")

    import gpt2_wgpu as gw

    use_adapter(args)
    peak = _watch_memory(gw.default_device()) if args.memory else None
    with terminal.progress(f"loading {args.model}") as on_progress:
        lm = gw.GPT2CausalLM.from_preset(
            args.model,
            dtype=OPTIONS.get(args.dtype),
            on_progress=on_progress,
            adapter=args.adapter_weights,
        )
    settings = settings_of(args, lm)
    greedy = settings["temperature"] == 0
    note_what_is_ignored(args, greedy, terminal)
    if settings["seed"] is None:
        settings["seed"] = secrets.randbelow(2**31)
    lm.compile(sampler=sampler_of(settings, args.beams))
    terminal.waiting("compiling kernels")
    with lm.stream(
        prompt,
        max_new_tokens=settings["max_new_tokens"],
        stop_texts=args.stop,
        add_start_token=not args.no_start_token,
        **allowed_special(args.allowed_special),
    ) as stream:
        printer = StreamPrinter(
            stream,
            prompt,
            terminal,
            json=args.json,
            echo=not args.no_echo,
        )
        printer.run(at_once=args.no_stream)
    adapter = lm.device.info
    seed = None if greedy or args.beams else settings["seed"]
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


def allowed_special(tokens: list[str]) -> dict[str, Any]:
    """Returns the argument `allowed_special` of `stream` and `generate`."""
    if not tokens:
        return {}
    return {"allowed_special": "all" if "all" in tokens else tokens}


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


def note_what_is_ignored(args: argparse.Namespace, greedy: bool, terminal: Terminal) -> None:
    """Names the sampling options without effect with beam or greedy search."""
    if not (args.beams or greedy):
        return
    unused = [each for each in SAMPLER_PARAMETERS if args.beams or each not in COMMON_PARAMETERS]
    ignored = [each.flags[-1] for each in unused if getattr(args, each.name) is not None]
    why = "--beams" if args.beams else "--greedy"
    if args.beams and args.greedy:
        ignored.append("--greedy")
    if not (args.beams or args.greedy):
        why = "the greedy search of generation_config.json: give --temp to sample"
        if args.temperature == 0:
            ignored.remove("--temp")
            why = "--temp 0"
    if ignored:
        verb = "have" if len(ignored) > 1 else "has"
        terminal.info(f"{' and '.join(ignored)} {verb} no effect with {why}")


def _read_prompt(prompt: str | None, terminal: Terminal) -> str:
    """Returns the prompt: the argument, or standard input."""
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
        # `echo` and editors add a final newline that is not part of the prompt.
        prompt = prompt.removesuffix("\n").removesuffix("\r")
    if not prompt:
        terminal.info("no prompt: starting a new text")
    return prompt


def settings_of(args: argparse.Namespace, lm: gw.GPT2CausalLM) -> dict[str, Any]:
    """Returns the sampling parameters: options, else the model's defaults, else the command's."""
    greedy = {"temperature": 0} if args.greedy else {}
    return with_defaults(vars(args) | greedy, lm.generation_defaults | lm.generation_limits)


def sampler_of(settings: dict[str, Any], beams: int | None) -> gw.samplers.Sampler:
    """Returns the sampler of the options."""
    from gpt2_wgpu import samplers

    if beams:
        return samplers.BeamSampler(beams)
    return samplers.of_settings(**{each.name: settings[each.name] for each in SAMPLER_PARAMETERS})
