"""Sampling parameters: the one table of their ranges, defaults and descriptions.

Samplers check values by it, ``gpt2-wgpu generate`` makes its options of it and the web worker its
settings; ``scripts/generate_web.py`` writes it into web/gpt2.d.ts and index.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.validation import Range

MAX_COUNT = 2**31 - 1
MAX_BEAMS = 32  # shaders/reorder_cache.wgsl
MAX_DRAFT = 7  # tokens of prompt lookup: with the newest one, half of the kernels' tiles of 16
MAX_TOP_LOGPROBS = 20  # as OpenAI's API
TIME_LIMIT_SECONDS = Range(0, 1e9, open_low=True)


@dataclass(frozen=True)
class Field:
    """Field of the page's form: a number and a slider, with their own, narrower ranges."""

    label: str
    number: tuple[float, float]  # lowest, highest
    slider: tuple[float, float, float]  # lowest, highest, step
    note: str  # beside the default


@dataclass(frozen=True)
class Parameter:
    """Sampling parameter.

    ``default`` is that of the command and the page, where the model's generation_config.json has
    none; ``neutral`` is that of a ``Sampler``: with it the parameter changes nothing. None: no
    value, so a random seed.
    """

    name: str  # in Python
    javascript: str  # in JavaScript
    range: Range
    neutral: float | None
    default: float | None
    flags: tuple[str, ...]
    metavar: str
    help: str  # the value is called as in ``metavar``
    field: Field | None = None
    neutral_if_greedy: bool = False  # the default at temperature 0 is ``neutral``

    def described_default(self, greedy: str) -> str:
        """The default in words; ``greedy`` says when it is another one: "with --greedy"."""
        if self.default is None:
            return "a random one, which is reported"
        other = f"; {self.neutral:g} {greedy}" if self.neutral_if_greedy else ""
        return f"{self.default:g}{other}"


TEMPERATURE = Parameter(
    "temperature",
    "temperature",
    Range(0, 1e30),
    neutral=1.0,
    default=0.8,
    flags=("--temp", "--temperature"),
    metavar="T",
    help="temperature; higher is more random, 0 is greedy search",
    field=Field("Temperature", (0, 5), (0, 2, 0.05), "0 = greedy, higher = more random"),
)
TOP_K = Parameter(
    "top_k",
    "topK",
    Range(0, MAX_COUNT, whole=True),
    neutral=0,
    default=40,
    flags=("--top-k",),
    metavar="K",
    help="sample from the K most likely tokens; 0: off",
    field=Field("Top-k", (0, 50257), (0, 200, 1), "sample from the k most likely tokens (0 = all)"),
)
TOP_P = Parameter(
    "top_p",
    "topP",
    Range(0, 1, open_low=True),
    neutral=1.0,
    default=0.95,
    flags=("--top-p",),
    metavar="P",
    help="nucleus sampling: the smallest set of tokens with cumulative probability P; 1: off",
    field=Field(
        "Top-p", (0.01, 1), (0.01, 1, 0.01), "smallest set of tokens with total probability p"
    ),
)
MIN_P = Parameter(
    "min_p",
    "minP",
    Range(0, 1),
    neutral=0.0,
    default=0.0,
    flags=("--min-p",),
    metavar="P",
    help="drop tokens with less than P times the probability of the most likely one; 0: off",
    field=Field("Min-p", (0, 1), (0, 1, 0.01), "fraction of the largest probability, 0 = off"),
)
TYPICAL_P = Parameter(
    "typical_p",
    "typicalP",
    Range(0, 1, open_low=True),
    neutral=1.0,
    default=1.0,
    flags=("--typical-p",),
    metavar="P",
    help="locally typical sampling: the tokens of cumulative probability P whose information is "
    "closest to the expected one; 1: off",
    field=Field("Typical-p", (0.01, 1), (0.01, 1, 0.01), "locally typical sampling, 1 = off"),
)
REPETITION_PENALTY = Parameter(
    "repetition_penalty",
    "repetitionPenalty",
    Range(0, 1e3, open_low=True),
    neutral=1.0,
    default=1.1,  # without it small models fall into loops
    flags=("--repeat-penalty", "--repetition-penalty"),
    metavar="R",
    help="divide positive logits of tokens in prompt and text by R, multiply negative ones; 1: off",
    field=Field(
        "Repetition penalty", (0.1, 10), (1, 2, 0.05), ">1 discourages repetition, 1 = off"
    ),
    neutral_if_greedy=True,
)
PRESENCE_PENALTY = Parameter(
    "presence_penalty",
    "presencePenalty",
    Range(-1e3, 1e3),
    neutral=0.0,
    default=0.0,
    flags=("--presence-penalty",),
    metavar="X",
    help="subtract X from the logits of tokens already generated; 0: off",
)
FREQUENCY_PENALTY = Parameter(
    "frequency_penalty",
    "frequencyPenalty",
    Range(-1e3, 1e3),
    neutral=0.0,
    default=0.0,
    flags=("--frequency-penalty",),
    metavar="X",
    help="subtract X once for each time a token was generated; 0: off",
)
NO_REPEAT_NGRAM_SIZE = Parameter(
    "no_repeat_ngram_size",
    "noRepeatNgramSize",
    Range(0, MAX_COUNT, whole=True),
    neutral=0,
    default=0,
    flags=("--no-repeat-ngram-size",),
    metavar="N",
    help="let no sequence of N tokens occur twice in prompt and text; 0: off",
)
MIN_LENGTH = Parameter(
    "min_length",
    "minLength",
    Range(0, MAX_COUNT, whole=True),
    neutral=0,
    default=0,
    flags=("--min-length",),
    metavar="N",
    help="no end token before N tokens, with those of the prompt; 0: off",
)
MIN_NEW_TOKENS = Parameter(
    "min_new_tokens",
    "minNewTokens",
    Range(0, MAX_COUNT, whole=True),
    neutral=0,
    default=0,
    flags=("--min-new-tokens",),
    metavar="N",
    help="no end token before N new tokens; 0: off",
)
MAX_NEW_TOKENS = Parameter(
    "max_new_tokens",
    "maxTokens",
    Range(1, MAX_COUNT, whole=True),
    neutral=None,
    default=128,
    flags=("-n", "--max-new-tokens", "--max-tokens"),
    metavar="N",
    help="stop after N tokens, or at the end of the model's context",
    field=Field("Max tokens", (1, 1024), (1, 512, 1), "at most the context length"),
)
SEED = Parameter(
    "seed",
    "seed",
    Range(0, 2**64 - 1, whole=True),
    neutral=None,
    default=None,
    flags=("--seed",),
    metavar="N",
    help="seed of the random numbers: same seed, same adapter, same text",
)
# Those that are rules: without a value that of the model's generation_config.json is used.
RULE_PARAMETERS = (NO_REPEAT_NGRAM_SIZE, MIN_LENGTH, MIN_NEW_TOKENS)
# Keyword arguments of every sampler.
COMMON_PARAMETERS = (
    MIN_P,
    TYPICAL_P,
    REPETITION_PENALTY,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    *RULE_PARAMETERS,
)
# Those that depend on earlier tokens.
HISTORY_PARAMETERS = (
    REPETITION_PENALTY,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    *RULE_PARAMETERS,
)
# Arguments of `samplers.of_settings`.
SAMPLER_PARAMETERS = (TEMPERATURE, TOP_K, TOP_P, *COMMON_PARAMETERS, SEED)
PARAMETERS = (*SAMPLER_PARAMETERS, MAX_NEW_TOKENS)

# Settings of a checkpoint that ask for a search, as arguments of `samplers.of_settings`.
BEAM_SETTINGS = ("num_beams", "length_penalty", "early_stopping", "force_words_ids")
SEARCH_SETTINGS = (*BEAM_SETTINGS, "penalty_alpha")
CONTRASTIVE_K = 5  # candidates of contrastive search where top_k is not given


def search_of(given: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `SEARCH_SETTINGS` of ``checkpoint``, unless ``given`` says how to sample.

    ``given``: values by name; None is none.
    """
    found = {name: checkpoint[name] for name in SEARCH_SETTINGS if name in checkpoint}
    ways = [TEMPERATURE, TOP_P, MIN_P, TYPICAL_P]
    ways += [] if "penalty_alpha" in found else [TOP_K]
    return {} if any(given.get(each.name) is not None for each in ways) else found


def with_defaults(
    given: Mapping[str, Any], checkpoint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A value for each of `PARAMETERS`, by its name: the given one, or the default for None.

    ``checkpoint``: a model's own (``lm.generation_defaults``, ``lm.generation_limits``). None for
    a parameter that the model has by itself: a rule, and ``max_new_tokens`` if the checkpoint
    has ``max_length``. If the checkpoint asks for a search, the temperature is 0, and its
    `SEARCH_SETTINGS` are among the values; see `search_of`.
    """
    own = {} if checkpoint is None else checkpoint
    if search := search_of(given, own):
        own = {**own, TEMPERATURE.name: 0}
        if "penalty_alpha" in search:
            own = {TOP_K.name: CONTRASTIVE_K, **own}
    values = {
        each.name: own.get(each.name) if given.get(each.name) is None else given[each.name]
        for each in PARAMETERS
    }
    greedy = values["temperature"] == 0
    kept = {*RULE_PARAMETERS} | ({MAX_NEW_TOKENS} if "max_length" in own else set())
    for each in PARAMETERS:
        if values[each.name] is None and each not in kept:
            neutral = greedy and each.neutral_if_greedy
            values[each.name] = each.neutral if neutral else each.default
    return values | search
