"""Contrastive search: the decoding loop of ``ContrastiveSampler``.

The candidates of a prompt are rows of one batch. A step computes them, their similarities with the
hidden states of the text, and the candidates that follow each; Python chooses between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError, ShapeError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.decode_step import dispose_unkept
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.sampler_call import only
from gpt2_wgpu.models.search_rules import SearchRules
from gpt2_wgpu.models.search_step import SearchStep, started
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers import ContrastiveSampler
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, dispose, empty, keep, ops
from gpt2_wgpu.tensors.ops.arrays import copy_block
from gpt2_wgpu.tensors.ops.strides import row_major

_EXCLUDED = -3.4e38  # logit of an excluded token: shaders/include/rank.wgsl


class ContrastiveStep(SearchStep):
    """Step of candidates, with the hidden states of the texts."""

    needs_hidden = True

    def _prepare(self, hidden: Sequence[Tensor]) -> None:
        """Keep the hidden states of the prompts."""
        groups, rows = len(self.prompts), self._count
        width = self._model.backbone.config.n_embd
        shape = (groups, self._whole.length, width)
        history, newest = empty(self.device, shape), empty(self.device, (groups * rows, width))
        self._all = history, newest  # of all prompts
        self._open.callback(dispose, keep([*self._all]))
        first = 0
        for chunk in hidden:
            _check_hidden(chunk, groups, width)
            copy_block(
                chunk, history, chunk.shape, row_major(chunk.shape), 0,
                row_major(shape), first * width,
            )  # fmt: skip
            first += chunk.shape[1]
        dispose_unkept(hidden)

    def _move(self, moves: Sequence[tuple[int, int]]) -> None:
        super()._move(moves)
        history, newest = self._all
        nn.move_rows(history, moves)
        groups = newest.view((history.shape[0], newest.size // history.shape[0]))
        try:
            nn.move_rows(groups, moves)
        finally:
            groups.dispose()

    def _views(self) -> Sequence[Tensor]:
        history, newest = self._all
        places = len(self.prompts)
        self._history, self._newest = history.first(places), newest.first(places * self._count)
        return self._history, self._newest

    def _results(self, logits: Tensor, hidden: Any) -> Sequence[Tensor]:
        """Return the results of ``score``, and the largest similarity of each row."""
        _check_hidden(hidden, *self._newest.shape)
        newest = hidden.view(self._newest.shape)
        nn.append_hidden(self._newest, self._history, self._parents, self._position, self._first)
        similarities = nn.similarity(newest, self._history, self._position)
        size = (newest.size,)
        copy_block(newest, self._newest, size, (1,), 0, (1,), 0)
        return [*super()._results(logits, hidden), ops.max(similarities, axis=1)]


async def contrastive_search(
    sampler: ContrastiveSampler,
    model: CachedModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    candidates: Candidates,
    control: Control | None = None,
    options: SamplingOptions | None = None,
) -> list[list[int]]:
    """Return the new tokens of each prompt, with total lengths up to ``limits``.

    ``control`` may end all rows before. ``options``: those of ``sampler``, with the rules of the
    checkpoint (default: without).

    InvalidArgumentError with fewer candidates than ``k``.
    """
    control, options = control or Control(), options or sampler.options()
    count = sampler.checked().k
    free = candidates.end - len(candidates.excluded)
    if count > free:
        raise InvalidArgumentError(
            f"k {count} exceeds the number of tokens that can follow, {free}"
        )
    new: list[list[int]] = [[] for _ in prompts]
    done = [len(prompt) >= limit for prompt, limit in zip(prompts, limits, strict=True)]
    if all(done) or control.reason is not None:
        return new

    device = model.backbone.device
    rules = SearchRules.of(device, options, prompts, limits, stop_token_ids, candidates, count)
    score = _score(count, sampler.temperature, candidates, rules)
    async with AsyncExitStack() as opened:
        if rules is not None:
            opened.callback(rules.close)
        starting = ContrastiveStep.start(model, prompts, max(limits), count, score)
        step = await started(starting, control)
        if step is None:
            return new
        opened.callback(step.close)
        tokens = [token for prompt in prompts for token in [prompt[-1]] * count]
        best = [0] * len(prompts)
        places = [len(prompt) - 1 for prompt in prompts]
        if rules is not None:
            rules.write(range(len(prompts)), [[()] * count] * len(prompts))
        values, ids, *highest, _ = await step.run(tokens, _each(places, count), _each(best, count))
        while True:
            before = step.prompts
            await step.compact(done)
            live = step.prompts
            # The candidates that follow the best row of each prompt.
            rows = [before.index(which) * count + best[which] for which in live]
            weights = _of_rows(values.cast("f"), rows, count)
            tokens = _of_rows(ids.cast("I"), rows, count)
            if rules is not None:
                most = _of_rows(highest[0].cast("f"), rows, 1)
                weights = _probabilities(weights, most, sampler.temperature)
            _check(weights, [done[which] for which in live], live, options)
            places = [len(prompts[w]) + (-1 if done[w] else len(new[w])) for w in live]
            chosen = [best[which] for which in live]
            if rules is not None:
                rules.write(live, _texts(tokens, [() if done[w] else new[w] for w in live]))
            values, ids, *highest, found = await step.run(
                tokens, _each(places, count), _each(chosen, count)
            )
            similarities = found.cast("f").tolist()
            for place, which in enumerate(live):
                if done[which]:
                    continue
                group, row = slice(place * count, (place + 1) * count), new[which]
                best[which] = sampler.best_of(weights[group], similarities[group])
                row.append(tokens[place * count + best[which]])
                full = len(prompts[which]) + len(row) == limits[which]
                done[which] = full or row[-1] in stop_token_ids
            if all(done) or control.reason is not None:
                return new


def _check_hidden(hidden: Any, rows: int, width: int) -> None:
    """Raise ShapeError unless ``hidden`` is a tensor [rows, T, width]."""
    if (
        not isinstance(hidden, Tensor)
        or hidden.ndim != 3
        or (hidden.shape[0], hidden.shape[2]) != (rows, width)
    ):
        raise ShapeError(
            "contrastive search needs hidden states of build_cache and call_with_cache as a "
            f"Tensor of shape ({rows}, T, {width}), not {shown(hidden)}"
        )


def _each(values: Sequence[int], count: int) -> list[int]:
    """Return each of ``values`` ``count`` times."""
    return [value for value in values for _ in range(count)]


def _of_rows(values: memoryview[Any], rows: Sequence[int], count: int) -> list[Any]:
    """Return the ``rows`` of ``values`` [R, count], one after another."""
    return [value for row in rows for value in values[row * count : (row + 1) * count]]


def _score(
    count: int, temperature: float, candidates: Candidates, rules: SearchRules | None
) -> Callable[[Tensor], Sequence[Tensor]]:
    """Return the function of logits [R, V] to the best ``count`` probabilities, and their tokens.

    With ``rules`` to log-probabilities, which distinguish excluded tokens from improbable ones,
    their tokens, and the largest logit of each row.
    """

    def probabilities(logits: Tensor) -> Sequence[Tensor]:
        logits = only(logits, candidates)
        return ops.top_k(ops.softmax(ops.div(logits, temperature)), count)

    def obeying(logits: Tensor) -> Sequence[Tensor]:
        assert rules is not None
        logits = rules.apply(only(logits, candidates))
        if temperature < 1:  # the quotient stays finite
            lowest = _EXCLUDED * temperature
            logits = ops.where(ops.less(logits, lowest), lowest, logits)
        logits = ops.div(logits, temperature)
        return *ops.top_k(ops.log_softmax(logits), count), ops.max(logits, axis=1)

    return probabilities if rules is None else obeying


def _probabilities(
    logarithms: Sequence[float], highest: Sequence[float], temperature: float
) -> list[float]:
    """Return the probabilities of ``logarithms``; minus infinity for an excluded token.

    ``highest``: the largest logit of each row.
    """
    count, lowest = len(logarithms) // len(highest), _EXCLUDED / max(temperature, 1.0) / 2
    return [
        -math.inf if min(value, highest[place // count]) < lowest else math.exp(value)
        for place, value in enumerate(logarithms)
    ]


def _texts(tokens: Sequence[int], new: Sequence[Sequence[int]]) -> list[list[tuple[int, ...]]]:
    """Return the new tokens of each candidate: one of ``tokens`` after those of its prompt."""
    count = len(tokens) // len(new)
    return [
        [(*row, token) for token in tokens[place * count : (place + 1) * count]]
        for place, row in enumerate(new)
    ]


def _check(
    probabilities: Sequence[float],
    done: Sequence[bool],
    rows: Sequence[int],
    options: SamplingOptions,
) -> None:
    """Raise NumericalError for NaN among the probabilities of ``rows``, or only excluded tokens."""
    count = len(probabilities) // len(rows)
    for place, which in enumerate(rows):
        group = probabilities[place * count : (place + 1) * count]
        if any(math.isnan(each) or each == math.inf for each in group):
            raise not_finite(f"the logits of row {which} are not finite")
        if not done[place] and max(group) == -math.inf:
            raise NumericalError(
                f"every token of row {which} is excluded: "
                f"{options.rules.cause_of_exclusion()}; leave one"
            )
