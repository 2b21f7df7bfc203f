"""Settings of a page's call: JavaScript's names and values, as arguments of the model."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import GPT2WGPUError, InvalidArgumentError
from gpt2_wgpu.samplers.rule_arguments import RULE_ARGUMENTS
from gpt2_wgpu.sampling_parameters import (
    BEAM_SETTINGS,
    HISTORY_PARAMETERS,
    MAX_TOP_LOGPROBS,
    PARAMETERS,
    SAMPLER_PARAMETERS,
    SEARCH_SETTINGS,
    SEED,
    TIME_LIMIT_SECONDS,
)
from gpt2_wgpu.sampling_parameters import with_defaults as with_default_parameters
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import Range, integer


def camel_case(name: str) -> str:
    """Return JavaScript's form of a Python name: ``logit_bias`` → ``logitBias``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


DEFAULTS: dict[str, Any] = {each.javascript: each.default for each in PARAMETERS}
# Rules for tokens: arguments of every sampler.
RULES = {camel_case(name): name for name in RULE_ARGUMENTS}
_OTHERS = {
    "stop": "stop_texts",
    "allowedSpecial": "allowed_special",
    "addStartToken": "add_start_token",
    "numReturnSequences": "num_return_sequences",
    "numBeams": "num_beams",
    "lengthPenalty": "length_penalty",
    "returnAllBeams": "return_all_beams",
    "timeLimit": "time_limit",
    "details": "return_details",
    "topLogprobs": "top_logprobs",
}
SETTINGS = (*DEFAULTS, *RULES, *_OTHERS)
_ARGUMENTS = {  # of other methods
    "tokenIds": "token_ids",
    "targetIds": "target_ids",
    "maxLength": "max_length",
    "contextPolicy": "context_policy",
}
_JAVASCRIPT = {each.name: each.javascript for each in PARAMETERS} | {
    python: javascript for javascript, python in (RULES | _OTHERS | _ARGUMENTS).items()
}
_WORDS = {
    "None": "null",
    "True": "true",
    "False": "false",
    "a str": "a text",
    "non-empty str": "non-empty texts",
    "a list of str": "an array of texts",
    "a list": "an array",
    "a dict": "an object",
    "nan": "NaN",
    "inf": "Infinity",
}
_PYTHON_NAME = re.compile(  # quoted texts, which stay, or a word
    r"(?<!\w)(?:'[^']*'|\"[^\"]*\")(?!\w)|"
    rf"(?<![\w'\"])(?:(?:{'|'.join(_JAVASCRIPT)})\b|(?:{'|'.join(_WORDS)})(?!\w))"
)
_SEQUENCES = Range(1, 1 << 16, whole=True)


@contextmanager
def javascript_names() -> Iterator[None]:
    """Errors raised inside name arguments and values as JavaScript does."""
    try:
        yield
    except GPT2WGPUError as error:
        if error.args and isinstance(error.args[0], str):
            words = _JAVASCRIPT | _WORDS
            message = _PYTHON_NAME.sub(lambda found: words.get(found[0], found[0]), error.args[0])
            error.args = (message, *error.args[1:])
        raise


def search_warnings(defaults: Mapping[str, Any]) -> list[str]:
    """Return a warning about the search of a checkpoint, if it has one."""
    found = [f"{name} {value}" for name, value in defaults.items() if name in SEARCH_SETTINGS]
    if not found:
        return []
    return [
        f"generation_config.json sets {', '.join(found)}, a search: lm.generate obeys it, but "
        "texts of a session, as on this page, are sampled"
    ]


@dataclass(frozen=True)
class Settings:
    """Settings of one call.

    ``seeds``: one for each text, None in greedy and beam search. ``top_logprobs``: None without
    details.
    """

    sampler: samplers.Sampler
    seeds: Sequence[int] | None
    texts_per_prompt: int
    top_logprobs: int | None
    arguments: dict[str, Any]  # of `stream` and `generate`

    def seed_of(self, row: int) -> int | None:
        """Return the seed of a text."""
        return None if self.seeds is None else self.seeds[row]

    @staticmethod
    def of(given: Mapping[str, Any], own: Mapping[str, Any], prompts: int = 1) -> Settings:
        """Return the settings of a call with keys of `SETTINGS`; None is the default.

        Args:
            given: the call's settings.
            own: defaults of the model.
            prompts: number of prompts.

        Raises:
            InvalidArgumentError: a setting is unknown or out of range.
        """
        values = {key: value for key, value in given.items() if value is not None}
        if unknown := sorted(values.keys() - set(SETTINGS)):
            known = ", ".join([*SETTINGS, "constraint", "signal", "tokens", "wait"])
            raise InvalidArgumentError(f"no setting {shown(unknown[0])}; there are {known}")
        each = int(_SEQUENCES.check("num_return_sequences", values.get("numReturnSequences", 1)))
        seeds: list[int] | None = None
        sampler: samplers.Sampler
        if "numBeams" in values:
            sampler = _beam_sampler(values, own)
            own = {name: value for name, value in own.items() if name not in SEARCH_SETTINGS}
        seed = values.pop("seed", None)
        parameters_given = {each.name: values.get(each.javascript) for each in PARAMETERS}
        chosen = with_default_parameters(parameters_given, own)
        del chosen["seed"]
        if "numBeams" not in values:
            seeds = _seeds(seed, prompts * each)
            names = [*(p.name for p in SAMPLER_PARAMETERS if p != SEED), *SEARCH_SETTINGS]
            parameters = {name: chosen[name] for name in names if name in chosen}
            if "lengthPenalty" in values:
                if "num_beams" not in chosen:
                    raise InvalidArgumentError(
                        "lengthPenalty is part of beam search: set numBeams, too"
                    )
                parameters["length_penalty"] = values["lengthPenalty"]
            sampler = samplers.of_settings(seed=seeds[0], **parameters, **_rules(values))
        if values.get("returnAllBeams"):
            if not isinstance(sampler, samplers.BeamSampler):
                raise InvalidArgumentError(
                    "returnAllBeams is part of beam search: set numBeams, too"
                )
            sampler.return_all_beams = True
        stop, special = values.get("stop"), values.get("allowedSpecial", ())
        return Settings(
            sampler,
            None if chosen["temperature"] == 0 else seeds,
            each,
            _top_logprobs(values),
            {
                "max_new_tokens": chosen["max_new_tokens"],
                "stop_texts": [stop] if isinstance(stop, str) else stop,
                "allowed_special": special,
                "add_start_token": values.get("addStartToken"),
                "time_limit": _time_limit(values.get("timeLimit")),
            },
        )


def _beam_sampler(values: Mapping[str, Any], own: Mapping[str, Any]) -> samplers.BeamSampler:
    """Return the beam search of a call; InvalidArgumentError for settings of a random choice."""
    for each in SAMPLER_PARAMETERS:
        if each not in HISTORY_PARAMETERS and each.javascript in values:
            raise InvalidArgumentError(f"beam search is not random: omit {each.javascript}")
    given = {
        each.name: values.get(each.javascript, own.get(each.name)) for each in HISTORY_PARAMETERS
    }
    options = {name: value for name, value in given.items() if value is not None} | _rules(values)
    options |= {name: own[name] for name in BEAM_SETTINGS[1:] if name in own}
    if "lengthPenalty" in values:
        options["length_penalty"] = values["lengthPenalty"]
    return samplers.BeamSampler(values["numBeams"], **options)


def _seeds(given: Any, texts: int) -> list[int]:
    """Return the seed of each text: those given, or consecutive ones from the one given."""
    if isinstance(given, list):
        if len(given) != texts:
            raise InvalidArgumentError(
                f"seed has {len(given)} entries for {texts} texts: give one for each"
            )
        return [int(SEED.range.check("seed", each)) for each in given]
    first = secrets.randbelow(2**53 - texts) if given is None else given
    first = int(SEED.range.check("seed", first))
    return [(first + row) % 2**64 for row in range(max(1, texts))]


def _time_limit(seconds: Any) -> Any:
    """Return Python's argument for ``timeLimit``: infinity is none, also of a checkpoint."""
    return TIME_LIMIT_SECONDS.high if seconds == math.inf else seconds


def _rules(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: values[key] for key, name in RULES.items() if key in values}
    bias = found.get("logit_bias")
    if isinstance(bias, Mapping):  # JavaScript's keys are strings
        found["logit_bias"] = {
            int(key) if str(key).isdecimal() else key: value for key, value in bias.items()
        }
    return found


def _top_logprobs(values: Mapping[str, Any]) -> int | None:
    if values.get("details"):
        return integer("top_logprobs", values.get("topLogprobs", 0), 0, MAX_TOP_LOGPROBS)
    if "topLogprobs" in values:
        raise InvalidArgumentError("topLogprobs are part of the details: set details to true, too")
    return None
