"""``generation_config.json`` of a directory: end tokens, token rules, defaults and limits."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import ConfigError, InvalidArgumentError
from gpt2_wgpu.models.config import GPT2Config, flat_ids, read_object
from gpt2_wgpu.nn import NO_RULES, TokenRules
from gpt2_wgpu.samplers import GreedySampler, of_settings
from gpt2_wgpu.sampling_parameters import (
    BEAM_SETTINGS,
    MAX_NEW_TOKENS,
    MIN_P,
    REPETITION_PENALTY,
    SEARCH_SETTINGS,
    TEMPERATURE,
    TIME_LIMIT_SECONDS,
    TOP_K,
    TOP_P,
    TYPICAL_P,
    Parameter,
)
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import StopTextMatcher

GENERATION_CONFIG = "generation_config.json"
RULES = (
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "sequence_bias",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "no_repeat_ngram_size",
    "min_length",
    "min_new_tokens",
)
_BOS = "forced_bos_token_id"
_MAX_LENGTH = replace(MAX_NEW_TOKENS, name="max_length")
_LIMITS = (MAX_NEW_TOKENS, _MAX_LENGTH)
# Arguments of `generate`, and the file's names of those that have another name there.
_LIMIT_FIELDS = {
    **{each.name: each.name for each in _LIMITS},
    "time_limit": "max_time",
    "stop_texts": "stop_strings",
}
_SAMPLING = (TEMPERATURE, TOP_K, TOP_P, MIN_P, TYPICAL_P, REPETITION_PENALTY)
# Settings that change the text in transformers, with the value that has no effect there.
_NOT_OBEYED = {
    **dict.fromkeys(("top_h", "epsilon_cutoff", "eta_cutoff")),
    **dict.fromkeys(("dola_layers", "force_words_ids", "constraints")),
    **dict.fromkeys(("exponential_decay_length_penalty", "renormalize_logits")),
    **dict.fromkeys(("guidance_scale", "watermarking_config")),
    **dict.fromkeys(("encoder_no_repeat_ngram_size", "remove_invalid_values", "token_healing")),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 1),
    "encoder_repetition_penalty": 1,
    "diversity_penalty": 0,
}
# What does the same, where something does.
_BY_PROCESSORS = "logits_processors of compile"
_INSTEAD = {
    **dict.fromkeys(("top_h", "epsilon_cutoff", "eta_cutoff"), _BY_PROCESSORS),
    "exponential_decay_length_penalty": _BY_PROCESSORS,
    "force_words_ids": "sampler=BeamSampler(force_words_ids=...)",
    "num_beams": "only without do_sample",
    "num_return_sequences": "generate(..., num_return_sequences={})",
}


@dataclass(frozen=True)
class GenerationSettings:
    """Rules of a ``generation_config.json``, defaults of sampling, and limits of a text.

    ``limits``: arguments of ``generate``: ``max_new_tokens``, else ``max_length``, ``time_limit``
    and ``stop_texts``, if the file has them.
    """

    rules: TokenRules = NO_RULES
    defaults: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)  # all of the file

    def to_dict(
        self, rules: TokenRules, defaults: Mapping[str, Any], limits: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the file's values, with other rules, defaults and limits where these differ."""
        values = dict(self.values)
        if rules != self.rules:
            values = _without(values, RULES)
            values |= {name: value for name, value in vars(rules).items() if value}
            if _BOS in values:
                (values[_BOS],) = values[_BOS]
        if defaults != self.defaults:
            names = ("do_sample", *SEARCH_SETTINGS, *(each.name for each in _SAMPLING))
            values = _without(values, names) | dict(defaults)
            searches = any(name in defaults for name in SEARCH_SETTINGS)
            if defaults:
                values["do_sample"] = values.get("temperature") != 0 and not searches
            if values.get("temperature") == 0:
                del values["temperature"]
        if limits != self.limits:
            values = _without(values, _LIMIT_FIELDS.values())
            values |= {_LIMIT_FIELDS.get(name, name): value for name, value in limits.items()}
        return values


def read_config(directory: Path) -> GPT2Config:
    """Read the configuration of a directory.

    ``eos_token_id`` and ``bos_token_id`` of ``generation_config.json`` take precedence, as in
    transformers, with a ``UserWarning`` if they omit an end token of ``config.json``.

    Raises:
        ConfigError: a file is malformed, or a setting is not supported.
    """
    path = directory / "config.json"
    config = GPT2Config.from_json_file(path)
    if not (directory / GENERATION_CONFIG).is_file():
        return config
    values = read_object(directory / GENERATION_CONFIG)
    given = {
        key: flat_ids(values[key])
        for key in ("bos_token_id", "eos_token_id")
        if values.get(key) is not None
    }
    try:
        changed = replace(config, **given)
    except ConfigError as error:
        raise ConfigError(f"{directory / GENERATION_CONFIG}: {error}") from None
    _warn_of_difference(read_object(path), config, changed)
    return changed


def read_settings(directory: Path) -> GenerationSettings:
    """Read ``generation_config.json`` of a directory, except its start and end tokens.

    Other settings that would change the text are named in a ``UserWarning``.

    Raises:
        ConfigError: the file is malformed, or a setting is not valid.
    """
    path = directory / GENERATION_CONFIG
    if not path.is_file():
        return GenerationSettings()
    values = {key: value for key, value in read_object(path).items() if value is not None}
    try:
        rules = GreedySampler(**{name: values[name] for name in RULES if name in values}).rules()
    except InvalidArgumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    defaults = _given(values, _SAMPLING)
    limits = _limits(values)
    if values.get("do_sample") is False:
        defaults["temperature"] = 0.0  # greedy search
    _warn_of_invalid(values, defaults | limits)
    defaults |= _search(values, defaults)
    unused = [
        name
        for name, value in values.items()
        if name in _NOT_OBEYED
        and name not in defaults
        and (name != "num_beams" or values.get("do_sample") is True)
        and value not in (_NOT_OBEYED[name], False, [], {})
    ]
    if unused:
        warnings.warn(
            f"{GENERATION_CONFIG} sets {', '.join(unused)}, which the model does not apply by "
            f"itself ({'; '.join(_instead(name, values[name]) for name in unused)})",
            stacklevel=4,
        )
    return GenerationSettings(rules, defaults, limits, values)


def _instead(name: str, value: Any) -> str:
    """Return a setting with what to give instead."""
    return f"{name}: {_INSTEAD.get(name, 'not available').format(shown(value))}"


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _given(values: Mapping[str, Any], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Return the valid values of ``parameters``; 50.0 is an integer here, as in JSON."""
    given = {}
    for each in parameters:
        value = values.get(each.name)
        if each.range.whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        if (found := each.range.find(value)) is not None:
            given[each.name] = found
    return given


def _limits(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the valid limits of a text, as arguments of ``generate``."""
    found: dict[str, Any] = _given(values, (MAX_NEW_TOKENS,)) or _given(values, (_MAX_LENGTH,))
    if (seconds := TIME_LIMIT_SECONDS.find(values.get("max_time"))) is not None:
        found["time_limit"] = seconds
    stops = values.get("stop_strings", [])
    try:
        texts = StopTextMatcher([stops] if isinstance(stops, str) else stops).stops
    except InvalidArgumentError:
        return found
    return found | ({"stop_texts": texts} if texts else {})


def _search(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of beam or contrastive search; {} where the file does not search.

    As in transformers, beams take precedence, and a random choice has no contrastive search. Beams
    that are chosen at random are not available.
    """
    if values.get("do_sample") is True:
        return {}
    if values.get("num_beams", 1) != 1:
        names: tuple[str, ...] = BEAM_SETTINGS
    elif values.get("penalty_alpha"):
        names = ("penalty_alpha",)
    else:
        return {}
    found = {name: values[name] for name in names if name in values}
    try:
        of_settings(**{**defaults, **found})
    except InvalidArgumentError as error:
        warnings.warn(
            f"{GENERATION_CONFIG} sets {', '.join(found)}: {error}; greedy search is used instead",
            stacklevel=5,
        )
        return {"temperature": 0.0}
    return found


def _warn_of_invalid(values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Name the defaults that are left out: a model is loaded without them, too."""
    limited = any(each.name in given for each in _LIMITS)
    checked = (*_SAMPLING, *(() if limited else _LIMITS))
    allowed = {each.name: str(each.range) for each in checked if each.name not in given}
    if "time_limit" not in given:
        allowed["max_time"] = str(TIME_LIMIT_SECONDS)
    if "stop_texts" not in given and values.get("stop_strings") != []:
        allowed["stop_strings"] = "a text or a list of non-empty texts"
    for name, expected in allowed.items():
        if name in values:
            warnings.warn(
                f"{GENERATION_CONFIG} sets {name} to {shown(values[name])}, which is not "
                f"{expected}: it is ignored",
                stacklevel=4,
            )


def _warn_of_difference(written: Mapping[str, Any], old: GPT2Config, new: GPT2Config) -> None:
    if written.get("eos_token_id") is None or {*old.eos_token_ids} <= {*new.eos_token_ids}:
        return
    warnings.warn(
        f"config.json ends a text with token {old.eos_token_id}, {GENERATION_CONFIG} with "
        f"{new.eos_token_id}: the latter is used, as in transformers",
        stacklevel=4,
    )
