"""Base class of the samplers: temperature, penalties, and how a token is chosen."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Self

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.nn import Penalties, SamplingOptions, TokenRules
from gpt2_wgpu.samplers.drawing import draw_token
from gpt2_wgpu.samplers.python_sampling import run_loop
from gpt2_wgpu.samplers.rule_arguments import RULE_ARGUMENTS, all_biases
from gpt2_wgpu.sampling_parameters import (
    COMMON_PARAMETERS,
    RULE_PARAMETERS,
    TEMPERATURE,
    TOP_K,
)
from gpt2_wgpu.tensors import Tensor, ops, tensor
from gpt2_wgpu.validation import made_from
from gpt2_wgpu.webgpu import sync

K = replace(TOP_K.range, low=1)  # 0, all tokens, is another sampler
SequenceBias = Mapping[tuple[int, ...], float] | Sequence[Sequence[Any]]


class Sampler:
    """Base class of all samplers.

    Attributes may be changed between generations and take effect at once (KerasHub: only after
    ``compile``). Penalties (which KerasHub lacks) are applied before the temperature, in greedy
    search, too.

    The samplers of this package choose on the GPU. A subclass may replace `get_next_token`,
    `compute_probabilities` or the whole loop, `__call__`, as in KerasHub; generation then waits
    for Python at every token. Each may be a coroutine function.

    Args:
        temperature: divisor of the logits, 0 to 1e30; 0 (below 1e-30, in f32) is greedy search
            (KerasHub: NaN).
        min_p: tokens with less than this fraction of the largest probability are dropped
            (Nguyen et al. 2024); 0 drops none. Like ``typical_p``, after top-k and top-p, and
            without effect on greedy search.
        typical_p: locally typical sampling (Meister et al. 2022): only tokens whose information
            is closest to the entropy are kept, until their probability reaches this; 1 keeps all.
        repetition_penalty: above 1, divides positive logits of tokens in the prompt or the new
            text and multiplies negative ones (Keskar et al. 2019, as in transformers; the start
            token is part of the prompt).
        presence_penalty: subtracted from the logits of tokens in the new text (as in OpenAI's
            API).
        frequency_penalty: subtracted once per occurrence in the new text (as in OpenAI's API).
        no_repeat_ngram_size: no n-gram of this size occurs twice in prompt and text; 0: off.
            This and the following arguments are those of transformers' ``generate``; None: the
            rule of the model's generation_config.json, which 0, () and {} switch off.
        min_length: no stop token before the text has this length, with prompt and start token.
        min_new_tokens: no stop token before this number of new tokens.
        suppress_tokens: ids that are never chosen.
        begin_suppress_tokens: ids that are not chosen as the first new token.
        bad_words_ids: lists of ids that do not occur in the new text.
        logit_bias: numbers that are added to the logits of ids, a dict (as in OpenAI's API).
        sequence_bias: numbers that are added to the logit of the last of several tokens where
            the others end the text: a dict of tuples of ids, or a list of [ids, number].
        forced_bos_token_id: id: the second token of a text whose prompt is one token.
        forced_eos_token_id: id, or list of ids: the last token of a text that reaches its length.
        force_words_ids: only of a `BeamSampler`.

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    # Of the class that defines call_async: whether only KerasHub's call uses it, not ``generate``.
    loop_is_of_calls_only = False
    search_obeys_rules = False  # whether a search of this package applies penalties and rules:
    # in the class that defines call_async

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        no_repeat_ngram_size: int | None = None,
        min_length: int | None = None,
        min_new_tokens: int | None = None,
        suppress_tokens: Sequence[int] | None = None,
        begin_suppress_tokens: Sequence[int] | None = None,
        bad_words_ids: Sequence[Sequence[int]] | None = None,
        logit_bias: Mapping[int, float] | None = None,
        sequence_bias: SequenceBias | None = None,
        forced_bos_token_id: int | None = None,
        forced_eos_token_id: int | Sequence[int] | None = None,
        force_words_ids: None = None,
    ) -> None:
        if force_words_ids is not None:
            raise InvalidArgumentError(
                f"{_name(self)} cannot force words: give force_words_ids to a BeamSampler"
            )
        self.temperature = temperature
        self.min_p = min_p
        self.typical_p = typical_p
        self.repetition_penalty = repetition_penalty
        self.presence_penalty = presence_penalty
        self.frequency_penalty = frequency_penalty
        self.no_repeat_ngram_size = no_repeat_ngram_size
        self.min_length = min_length
        self.min_new_tokens = min_new_tokens
        self.suppress_tokens = suppress_tokens
        self.begin_suppress_tokens = begin_suppress_tokens
        self.bad_words_ids = bad_words_ids
        self.logit_bias = logit_bias
        self.sequence_bias = sequence_bias
        self.forced_bos_token_id = forced_bos_token_id
        self.forced_eos_token_id = forced_eos_token_id
        self.rules()  # raises for a value out of range

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = TEMPERATURE.range.check("temperature", value)

    def common(self) -> dict[str, float]:
        """Return the values of `COMMON_PARAMETERS` by name; InvalidArgumentError as above."""
        given = {each: getattr(self, each.name) for each in COMMON_PARAMETERS}
        given |= {each: each.neutral for each in RULE_PARAMETERS if given[each] is None}
        return {each.name: each.range.check(each.name, value) for each, value in given.items()}

    def penalties(self) -> Penalties:
        """Return the three penalties; InvalidArgumentError for a value out of range."""
        return _penalties(self.common())

    def rules(self) -> TokenRules:
        """Return the rules that exclude tokens; InvalidArgumentError as above."""
        values = self.common()
        rules: dict[str, Any] = {each.name: int(values[each.name]) for each in RULE_PARAMETERS}
        rules |= {name: check(name, getattr(self, name)) for name, check in RULE_ARGUMENTS.items()}
        rules["sequence_bias"] = all_biases(rules.pop("logit_bias"), rules["sequence_bias"])
        return TokenRules(**rules)

    def given_rules(self) -> set[str]:
        """Return the names in ``TokenRules`` of the rules that are given, also without effect."""
        names = [*RULE_ARGUMENTS, *(each.name for each in RULE_PARAMETERS)]
        given = {name for name in names if getattr(self, name) is not None}
        return given - {"logit_bias"} | ({"sequence_bias"} if "logit_bias" in given else set())

    def options(self, **chosen: Any) -> SamplingOptions:
        """Return ``SamplingOptions`` with the temperature, the common parameters and ``chosen``."""
        values = self.common()
        return SamplingOptions(
            **{
                "temperature": self.temperature,
                "penalties": _penalties(values),
                "min_p": values["min_p"],
                "typical_p": values["typical_p"],
                "rules": self.rules(),
                **chosen,
            }
        )

    def next_options(self) -> SamplingOptions:
        """Return the options of one generation on the GPU; a seeded sampler advances its seed."""
        raise InvalidArgumentError(f"{_name(self)} has no choice of its own: {_REMEDY}")

    def compute_probabilities(self, logits: Any) -> Any:
        """Return softmax(logits / temperature) of ``logits`` [B, V], a tensor of that shape.

        A temperature of 0 gives the logits unchanged; `get_next_token` then takes the largest.
        """
        given = logits if isinstance(logits, Tensor) else tensor(logits, "float32")
        return given if self.temperature < 1e-30 else ops.softmax(given / self.temperature)

    def get_next_token(self, probabilities: Any) -> Any:
        """Return the next token of each row of ``probabilities`` [B, V], as integers [B].

        V is the number of tokens that can be chosen. This default makes the choice of the GPU
        in Python, for subclasses and for `__call__`. It has no logits: where different ones have
        equal probabilities, as at temperatures far above the logits, the lower id ranks first.
        """
        rows = probabilities.tolist()
        options = self.next_options()
        if options.temperature >= 1e-30:
            options = replace(options, temperature=1.0)  # compute_probabilities has applied it
        return [draw_token(row, options, stream, 0) for stream, row in enumerate(rows)]

    def __call__(
        self,
        next: Callable[[Any, Any, int], Any],
        prompt: Any,
        cache: Any = None,
        index: int = 0,
        mask: Any = None,
        stop_token_ids: Sequence[int] | None = None,
        hidden_states: Any = None,
        model: Any = None,
    ) -> Any:
        """Return ``prompt`` [B, T] with its tokens from ``index`` on chosen: KerasHub's call.

        Blocks; `call_async` is the async counterpart.

        Args:
            next: ``next(prompt, cache, index) -> (logits [B, V], hidden states, cache)``, of the
                token before ``index``.
            prompt: token ids.
            cache: given to ``next``, replaced by what it returns.
            index: the first position to fill.
            mask: [B, T], True where ``prompt`` keeps its token.
            stop_token_ids: end the loop when every row has one among its chosen tokens.
            hidden_states: unused here, for subclasses.
            model: likewise.
        """
        call = self.call_async(
            next, prompt, cache, index, mask, stop_token_ids, hidden_states, model
        )
        return sync(call, "call_async(...)")

    async def call_async(
        self,
        next: Callable[[Any, Any, int], Any],
        prompt: Any,
        cache: Any = None,
        index: int = 0,
        mask: Any = None,
        stop_token_ids: Sequence[int] | None = None,
        hidden_states: Any = None,
        model: Any = None,
    ) -> Any:
        """Async counterpart of a call."""
        return await run_loop(self, next, prompt, cache, index, mask, stop_token_ids)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, without penalties that have no effect."""
        return {"temperature": self.temperature, **self._common_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the sampler of a result of `get_config`."""
        return made_from(cls, config)

    def _common_config(self) -> dict[str, Any]:
        values = self.common()
        numbers = {
            each.name: values[each.name]
            for each in COMMON_PARAMETERS
            if values[each.name] != each.neutral
        }
        rules = (*(each.name for each in RULE_PARAMETERS), *RULE_ARGUMENTS)
        given = {name: getattr(self, name) for name in rules}
        return numbers | {name: value for name, value in given.items() if value is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as a new sampler with the same arguments.

        A class with a constructor of its own is copied by its attributes.
        """
        if type(self).__init__.__module__.startswith("gpt2_wgpu."):
            return partial(type(self), **self.get_config()), ()
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def _penalties(values: dict[str, float]) -> Penalties:
    return Penalties(*(values[f"{each.name}_penalty"] for each in fields(Penalties)))


_REMEDY = "define get_next_token(probabilities), or next_options() for a choice on the GPU"


def runs_in_python(sampler: Sampler) -> bool:
    """Return whether ``sampler`` replaces `get_next_token` or `compute_probabilities`."""
    return any(_replaces(sampler, name) for name in ("get_next_token", "compute_probabilities"))


def runs_its_own_loop(sampler: Sampler) -> bool:
    """Return whether ``sampler`` replaces `__call__` or `call_async`, and ``generate`` calls it."""
    kind = type(sampler)
    if "call_async" in vars(sampler):
        return True
    owners = [_owner(kind, name) for name in ("__call__", "call_async")]
    return any(each is not Sampler and not _is_of_calls_only(each) for each in owners)


def _is_of_calls_only(owner: type) -> bool:
    return bool(vars(owner).get("loop_is_of_calls_only"))


def _owner(kind: type, name: str) -> type:
    """Return the class that defines the method ``name`` of ``kind``."""
    return next(each for each in kind.__mro__ if name in vars(each))


def check_usable(sampler: Sampler) -> Sampler:
    """Return ``sampler``.

    Raises:
        InvalidArgumentError: it defines no way to choose a token.
    """
    chooses = type(sampler).next_options is not Sampler.next_options
    replaces = _replaces(sampler, "get_next_token")
    if not (chooses or replaces or runs_its_own_loop(sampler)):
        raise InvalidArgumentError(f"{_name(sampler)} has no choice of its own: {_REMEDY}")
    given = sampler.penalties().any or sampler.rules().any
    if given and runs_its_own_loop(sampler) and not _search_obeys_rules(sampler):
        raise InvalidArgumentError(
            f"{_name(sampler)} replaces the sampling loop, which applies penalties and excludes "
            "tokens: leave these arguments at their defaults, or replace get_next_token only"
        )
    return sampler


def _search_obeys_rules(sampler: Sampler) -> bool:
    """Return whether the loop of ``sampler`` is that of a search, not of a subclass."""
    owner = _owner(type(sampler), "call_async")
    replaced = type(sampler).__call__ is not Sampler.__call__
    return bool(vars(owner).get("search_obeys_rules")) and not replaced


def _replaces(sampler: Sampler, name: str) -> bool:
    method = getattr(sampler, name)
    return getattr(method, "__func__", method) is not getattr(Sampler, name)


def _name(sampler: Sampler) -> str:
    return type(sampler).__name__
