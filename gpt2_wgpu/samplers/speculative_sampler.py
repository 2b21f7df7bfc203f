"""Speculative decoding: a small model drafts, the large one verifies (Leviathan et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.nn import SamplingOptions, TokenRules
from gpt2_wgpu.samplers.drawing import draw_token
from gpt2_wgpu.samplers.python_sampling import awaited, rows_of_prompt
from gpt2_wgpu.samplers.registry import get, serialize
from gpt2_wgpu.samplers.sampler import Sampler, runs_in_python, runs_its_own_loop
from gpt2_wgpu.samplers.seeded_sampler import SeededSampler
from gpt2_wgpu.sampling_parameters import MAX_DRAFT, SEED
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.text.token_arrays import as_array, rows_of_mask
from gpt2_wgpu.validation import Range, made_from
from gpt2_wgpu.webgpu import sync

TOKENS = Range(1, MAX_DRAFT, whole=True)


class SpeculativeSampler(SeededSampler):
    """The choices of ``base_sampler``, in fewer steps of the model.

    ``draft_model`` proposes tokens, which one step of the model verifies. Every position has its
    own random number, which both models draw with: a draft is accepted as far as it has the
    tokens that the model chooses anyway, so texts are those of ``base_sampler`` with the same
    seed (KerasHub keeps their distribution by rejection sampling).

    Args:
        num_speculative_tokens: length of the drafts, up to 7.
        base_sampler: one that chooses on the GPU; None: greedy search.
        seed: of the random numbers of ``base_sampler``; None: its own seed.
        temperature: without effect on greedy search; a ``base_sampler`` has its own.
        draft_model: a ``GPT2CausalLM`` with the tokens and the device of the model. ``generate``
            and ``stream`` need it; sessions and continuous batches run without drafts.
        **rules: penalties and token rules of greedy search; a ``base_sampler`` has its own.

    Raises:
        InvalidArgumentError: a value is out of range, or ``base_sampler`` does not choose on the
            GPU.
    """

    loop_is_of_calls_only = True

    def __init__(
        self,
        num_speculative_tokens: int = 5,
        base_sampler: Sampler | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        *,
        draft_model: Any = None,
        **rules: Any,
    ) -> None:
        self.base_sampler: Sampler | None = None
        super().__init__(temperature, seed, **rules)
        self.num_speculative_tokens = int(
            TOKENS.check("num_speculative_tokens", num_speculative_tokens)
        )
        self.draft_model = draft_model
        if base_sampler is None:
            return
        base = get(base_sampler)
        if runs_in_python(base) or runs_its_own_loop(base) or _is_speculative(base):
            raise InvalidArgumentError(
                f"base_sampler must choose on the GPU, token by token: {type(base).__name__} "
                "does not"
            )
        if rules or temperature != 1:
            raise InvalidArgumentError(
                "with a base_sampler, give temperature, penalties and token rules to it"
            )
        is_seeded = self.seed is not None and isinstance(base, SeededSampler)
        self.base_sampler = base.reseeded(self.seed) if is_seeded else base  # type: ignore

    def common(self) -> dict[str, float]:
        """See `Sampler.common`."""
        return super().common() if self.base_sampler is None else self.base_sampler.common()

    def rules(self) -> TokenRules:
        """See `Sampler.rules`."""
        return super().rules() if self.base_sampler is None else self.base_sampler.rules()

    def given_rules(self) -> set[str]:
        """See `Sampler.given_rules`."""
        base = self.base_sampler
        return super().given_rules() if base is None else base.given_rules()

    def next_options(self) -> SamplingOptions:
        """See `Sampler.next_options`."""
        base = self.base_sampler
        return self.options(temperature=0.0) if base is None else base.next_options()

    def reseeded(self, seed: int) -> Self:
        """See `SeededSampler.reseeded`."""
        copied = copy.copy(self)
        copied.seed = int(SEED.range.check("seed", seed))
        if isinstance(self.base_sampler, SeededSampler):
            copied.base_sampler = self.base_sampler.reseeded(seed)
        return copied

    def next_seed(self) -> int:
        """See `SeededSampler.next_seed`."""
        base = self.base_sampler
        return base.next_seed() if isinstance(base, SeededSampler) else super().next_seed()

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
        draft_next: Callable[[Any, Any, int], Any] | None = None,
        draft_cache: Any = None,
        verify_next: Callable[[Any, Any, int, int], Any] | None = None,
    ) -> Any:
        """Return ``prompt`` [B, T] with its tokens from ``index`` on chosen: KerasHub's call.

        Blocks; `call_async` is the async counterpart. The first arguments are those of
        `Sampler.__call__`. ``draft_next`` (required) and ``draft_cache`` are ``next`` and cache of
        the draft model. ``verify_next(prompt, cache, index, k)`` returns the model's logits
        [B, k + 1, V] from ``index`` on first, and the cache last; without it, ``next`` is called
        for each position.
        """
        given = next, prompt, cache, index, mask, stop_token_ids, hidden_states, model
        call = self.call_async(*given, draft_next, draft_cache, verify_next)
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
        draft_next: Callable[[Any, Any, int], Any] | None = None,
        draft_cache: Any = None,
        verify_next: Callable[[Any, Any, int, int], Any] | None = None,
    ) -> Any:
        """Async counterpart of a call.

        Rows advance together, by the draft of the row that accepts least. The random number of a
        token follows from seed, row and position.
        """
        if draft_next is None:
            raise InvalidArgumentError("SpeculativeSampler needs draft_next, of the draft model")
        if self.penalties().any or self.rules().any:
            raise InvalidArgumentError(
                "penalties and token rules are not supported by a call of the sampler: use generate"
            )
        rows = rows_of_prompt(prompt)
        given = [[False] * len(row) for row in rows] if mask is None else rows_of_mask(mask)
        options, length = self.next_options(), len(rows[0]) if rows else 0
        stops, stopped, place = {*(stop_token_ids or ())}, [False] * len(rows), index
        while place < length and not all(stopped):
            count = min(self.num_speculative_tokens, length - place - 1)
            trial = [list(row) for row in rows]
            with tidy("drafts") as scope:
                for at in range(place, place + count):
                    found = await awaited(draft_next(as_array(trial, "int32"), draft_cache, at))
                    logits, _, draft_cache = found
                    await self._choose(logits, trial, given, at, options)
                drafts = [list(row) for row in trial]
                found = await _verified(next, verify_next, trial, cache, place, count)
                logits, cache = found
                for at, each in enumerate(logits, place):
                    await self._choose(each, trial, given, at, options)
                scope.escape([cache, draft_cache])
            end = _first_difference(drafts, trial, place, place + count)
            for at in range(place, end + 1):
                for which, row in enumerate(trial):
                    rows[which][at] = row[at]
                    stopped[which] |= row[at] in stops and not given[which][at]
                if all(stopped):
                    break
            accepted_all = count > 0 and end == place + count
            if draft_cache is not None and accepted_all and end + 1 < length and not all(stopped):
                # The draft model has not computed the last token of its draft.
                with tidy("drafts") as scope:
                    found = await awaited(draft_next(as_array(rows, "int32"), draft_cache, end))
                    draft_cache = found[2]
                    scope.escape(draft_cache)
            place = end + 1
        return as_array(rows, "int32")

    async def _choose(
        self,
        logits: Any,
        rows: list[list[int]],
        given: Sequence[Sequence[bool]],
        at: int,
        options: SamplingOptions,
    ) -> None:
        """Write the tokens that ``logits`` [B, V] give at position ``at``, where none is given."""
        chooser = self.base_sampler or self
        if options.temperature >= 1e-30:  # else the largest logit: nothing to compute
            logits = chooser.compute_probabilities(logits)
            options = replace(options, temperature=1.0)
        for which, (row, values) in enumerate(zip(rows, await _values(logits), strict=True)):
            if not given[which][at]:
                row[at] = draw_token(values, options, which, at)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments but ``draft_model``; see `Sampler.get_config`."""
        base = self.base_sampler
        others = super().get_config() if base is None else {"seed": self.seed}
        return {
            "num_speculative_tokens": self.num_speculative_tokens,
            "base_sampler": None if base is None else serialize(base),
            **others,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the sampler of a result of `get_config`, without ``draft_model``."""
        base = config.get("base_sampler") if isinstance(config, Mapping) else None
        return made_from(cls, config if base is None else {**config, "base_sampler": get(base)})

    def __reduce__(self) -> tuple[Any, ...]:
        base = self.base_sampler
        others = {} if base is None else {"base_sampler": base}
        arguments = {**self.get_config(), **others, "draft_model": self.draft_model}
        return partial(type(self), **arguments), ()


def _is_speculative(sampler: Sampler) -> bool:
    return isinstance(sampler, SpeculativeSampler)


async def _verified(
    next: Callable[[Any, Any, int], Any],
    verify_next: Callable[[Any, Any, int, int], Any] | None,
    trial: Sequence[Sequence[int]],
    cache: Any,
    place: int,
    count: int,
) -> tuple[list[Any], Any]:
    """Return the model's logits [B, V] at ``place`` and ``count`` positions more, and the cache."""
    prompt = as_array(trial, "int32")
    if verify_next is None:
        results = []
        for at in range(place, place + count + 1):
            logits, _, cache = await awaited(next(prompt, cache, at))
            results.append(logits)
        return results, cache
    found = await awaited(verify_next(prompt, cache, place, count))
    rows = await _values(found[0])
    return [[row[at] for row in rows] for at in range(count + 1)], found[-1]


def _first_difference(
    drafts: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]], start: int, end: int
) -> int:
    """Return the first position from ``start`` to before ``end`` at which rows differ; or end."""
    pairs = [*zip(drafts, chosen, strict=True)]
    places = range(start, end)
    return next((at for at in places if any(a[at] != b[at] for a, b in pairs)), end)


async def _values(x: Any) -> Any:
    """Return a tensor or array as nested lists."""
    if isinstance(x, Tensor):
        return (await x.data()).tolist()
    return x.tolist() if hasattr(x, "tolist") else x
