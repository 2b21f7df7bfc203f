"""The options of the sampler and of the end of a text, and what they set."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.draft_options import draft_length
from gpt2_wgpu.cli.options import (
    Parser,
    in_range,
    integer,
    or_unlimited,
    stop_text,
    utf8,
)
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.sampling_parameters import (
    BEAM_SETTINGS,
    COMMON_PARAMETERS,
    HISTORY_PARAMETERS,
    MAX_BEAMS,
    MAX_DRAFT,
    MAX_NEW_TOKENS,
    SAMPLER_PARAMETERS,
    SEARCH_SETTINGS,
    TIME_LIMIT_SECONDS,
    TOP_K,
    Parameter,
    with_defaults,
)
from gpt2_wgpu.validation import Range

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_UNLIMITED = "; -1: until the text ends by itself"


def add_sampling(parser: Parser) -> None:
    """Adds the options of the sampler."""
    group = parser.add_argument_group(
        "sampling options",
        "generation_config.json takes precedence over these defaults and that of -n.",
    )
    for parameter in SAMPLER_PARAMETERS:
        _add_parameter(group, parameter)
    group.add_argument("--greedy", action="store_true", help="always take the most likely token")
    parser.conflict = conflict
    group.add_argument(
        "--beams",
        type=integer(1, MAX_BEAMS),
        metavar="N",
        help="beam search with N beams: the whole text is printed at the end; of the options above "
        "only penalties and rules have an effect",
    )
    group.add_argument(
        "--penalty-alpha",
        type=in_range(Range(0, 1)),
        metavar="A",
        help="contrastive search: of the --top-k most likely tokens (here 5 by default) the one "
        "that repeats least, by the weight A; of the other options above only penalties and rules "
        "have an effect",
    )
    group.add_argument(
        "--prompt-lookup",
        type=integer(0, MAX_DRAFT),
        default=0,
        metavar="N",
        help="draft up to N tokens from earlier text and verify them together: the same text, "
        "faster where it repeats itself; 0: off (default: %(default)s)",
    )


def conflict(args: argparse.Namespace) -> tuple[str, str] | None:
    """Returns the names of two options that cannot be combined, or None."""
    if args.beams and args.penalty_alpha is not None:
        return "beams", "penalty_alpha"
    if args.no_stop and args.stop:
        return "no_stop", "stop"
    has_draft = args.draft_model is not None
    if has_draft and args.prompt_lookup:
        return "draft_model", "prompt_lookup"
    if has_draft or args.prompt_lookup:
        for name in ("beams", "penalty_alpha"):
            if getattr(args, name) is not None:
                return "draft_model" if has_draft else "prompt_lookup", name
    return None


def _add_parameter(group: argparse._ActionsContainer, parameter: Parameter) -> None:
    limit = parameter is MAX_NEW_TOKENS
    default = parameter.described_default("with --greedy")
    group.add_argument(
        *parameter.flags,
        dest=parameter.name,
        type=or_unlimited(parameter.range) if limit else in_range(parameter.range),
        metavar=parameter.metavar,
        help=f"{parameter.help}{_UNLIMITED if limit else ''} (default: {default})",
    )


def add_ending(parser: Parser, *, timed: bool = True) -> None:
    """Adds the options of the ends of prompt and text."""
    group = parser.add_argument_group("stopping")
    add_limits(group, timed=timed)
    group.add_argument(
        "--no-start-token",
        action="store_true",
        help="do not put the model's start token before the prompt",
    )
    add_allowed_special(group, "the prompt")


def add_limits(group: argparse._ActionsContainer, *, timed: bool = True) -> None:
    """Adds the options of the end of a text; `timed`: also that of a time."""
    _add_parameter(group, MAX_NEW_TOKENS)
    group.add_argument(
        "--stop",
        action="append",
        type=stop_text,
        default=[],
        metavar="TEXT",
        help="stop before TEXT would appear (repeatable; default: that of generation_config.json, "
        "else none)",
    )
    group.add_argument(
        "--no-stop",
        action="store_true",
        help="stop before no text, also not before those of generation_config.json",
    )
    if timed:
        group.add_argument(
            "--time-limit",
            type=or_unlimited(TIME_LIMIT_SECONDS),
            metavar="SECONDS",
            help="stop after SECONDS, loading the model not included; -1: no limit (default: that "
            "of generation_config.json, else no limit)",
        )


def stop_texts(args: argparse.Namespace) -> list[str] | None:
    """Returns the argument `stop_texts` of `stream` and `generate`; None: the checkpoint's."""
    return [] if args.no_stop else args.stop or None


def add_allowed_special(group: argparse._ActionsContainer, text: str) -> None:
    """Adds the option --allowed-special for special tokens in `text`."""
    group.add_argument(
        "--allowed-special",
        action="append",
        type=utf8,
        default=[],
        metavar="TOKEN",
        help=f"special token to recognise in {text}, such as '<|endoftext|>', or 'all' "
        "(repeatable; default: none, they are plain text)",
    )


def allowed_special(tokens: list[str]) -> dict[str, Any]:
    """Returns the argument `allowed_special` of `stream` and `generate`."""
    if not tokens:
        return {}
    return {"allowed_special": "all" if "all" in tokens else tokens}


def settings_of(args: argparse.Namespace, lm: gw.GPT2CausalLM) -> dict[str, Any]:
    """Returns the sampling parameters: options, else the model's defaults, else the command's."""
    given = vars(args) | ({"temperature": 0} if args.greedy else {})
    own = lm.generation_defaults
    drafts = args.prompt_lookup or args.draft_model is not None
    if args.beams or args.penalty_alpha is not None or drafts:
        own = {name: value for name, value in own.items() if name not in SEARCH_SETTINGS}
    return with_defaults(given, own | lm.generation_limits)


def note_what_is_ignored(
    args: argparse.Namespace, settings: dict[str, Any], terminal: Terminal
) -> bool:
    """Names the sampling options without effect; returns whether the text is random."""
    search = _search(args, settings)
    if not (search or settings["temperature"] == 0):
        return True
    used = {*HISTORY_PARAMETERS} if search else {*COMMON_PARAMETERS}
    if (args.penalty_alpha is not None or "penalty_alpha" in settings) and args.top_k != 0:
        used.add(TOP_K)
    unused = [each for each in SAMPLER_PARAMETERS if each not in used]
    ignored = [each.flags[0] for each in unused if getattr(args, each.name) is not None]
    why = search or "--greedy"
    if search and args.greedy:
        ignored.append("--greedy")
    if not (search or args.greedy):
        why = "the greedy search of generation_config.json: give --temp to sample"
        if args.temperature == 0:
            ignored.remove("--temp")
            why = "--temp 0"
    if ignored:
        verb = "have" if len(ignored) > 1 else "has"
        terminal.info(f"{' and '.join(ignored)} {verb} no effect with {why}")
    return False


def compile_model(
    lm: gw.GPT2CausalLM,
    args: argparse.Namespace,
    settings: dict[str, Any],
    draft: gw.GPT2CausalLM | None = None,
) -> None:
    """Sets the sampler of the options, with a draft model if there is one.

    With None as the seed it draws its own.
    """
    from gpt2_wgpu import samplers

    sampler: samplers.Sampler
    given = lm.generation_defaults | {k: v for k, v in vars(args).items() if v is not None}
    rules = {each.name: given[each.name] for each in HISTORY_PARAMETERS if each.name in given}
    if args.beams:
        own = {n: v for n, v in given.items() if n in BEAM_SETTINGS and n != "num_beams"}
        sampler = samplers.BeamSampler(args.beams, **own, **rules)
    elif args.penalty_alpha is not None:
        top_k = args.top_k or 0
        sampler = samplers.of_settings(top_k=top_k, penalty_alpha=args.penalty_alpha, **rules)
    else:
        names = [*(each.name for each in SAMPLER_PARAMETERS), *SEARCH_SETTINGS]
        chosen = {name: settings[name] for name in names if name in settings}
        sampler = samplers.of_settings(**chosen)
        if draft is not None:
            length = draft_length(args)
            sampler = samplers.SpeculativeSampler(length, sampler, draft_model=draft)
    lm.compile(sampler=sampler, prompt_lookup_num_tokens=args.prompt_lookup)


def _search(args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """Returns the option that asks for a search, or that the checkpoint does, or ""."""
    if args.beams:
        return "--beams"
    if args.penalty_alpha is not None:
        return "--penalty-alpha"
    asks = any(name in settings for name in SEARCH_SETTINGS)
    return "the search of generation_config.json: give --temp to sample" if asks else ""
