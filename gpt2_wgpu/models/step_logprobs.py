"""Log-probabilities of generated tokens, from the logits of the steps that chose them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from gpt2_wgpu import nn
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.evaluation import LanguageModel, TokenLogprobs, token_logprobs
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.overrides import chosen, is_default


class StepLogprobs:
    """Log-probabilities of the new tokens of one generation's rows; its steps append them.

    It stays empty where no step can compute them (see :meth:`is_possible`), and in loops that have
    no decode step: searches, samplers with a loop of their own.

    Args:
        top: number of the most likely ids for each token.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._rows: list[TokenLogprobs] = []

    @staticmethod
    def is_possible(model: CachedModel) -> bool:
        """Return whether the logits of a step are the model's, not those of a replaced method."""
        return all(is_default(chosen(model, name)) for name in ("build_cache", "call_with_cache"))

    def begin(self, rows: int) -> None:
        """Begin ``rows`` without new tokens; a session that slides goes on with those it has."""
        self._rows = self._rows or [TokenLogprobs([], [], [], []) for _ in range(rows)]

    def append(self, row: int, odds: memoryview, place: int, positions: Sequence[int]) -> None:
        """Append those of the tokens at ``positions``, which are at ``place`` in ``odds``.

        NumericalError where a logit is not finite.
        """
        top, of_row = self.top, self._rows[row]
        for position in positions:
            numbers, ids = nn.odds_of(odds, place, position, top)
            loss, entropy, rank, total, *best = numbers
            if not math.isfinite(loss + total):
                raise not_finite(
                    f"the log-probability of row {row} at position {position} is not finite"
                )
            of_row.logprobs.append(-loss)
            of_row.top_logprobs.append(
                {token: value - total for token, value in zip(ids, best, strict=True)}
            )
            of_row.ranks.append(int(rank))
            of_row.entropies.append(entropy)

    def part(self, row: int, first: int, end: int, top: int) -> TokenLogprobs | None:
        """Return those of the new tokens from ``first`` to before ``end``, with ``top`` ids each.

        None if they are not known.
        """
        known = row < len(self._rows) and top <= self.top
        if not known or len(self._rows[row].logprobs) < end:
            return None
        logprobs, tops, ranks, entropies = self._rows[row]
        part = slice(first, end)
        tops = tops[part]
        if top < self.top:
            tops = [dict(islice(each.items(), top)) for each in tops]
        return TokenLogprobs(logprobs[part], tops, ranks[part], entropies[part])


async def logprobs_of_rows(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    new: Sequence[list[int]],
    top: int,
    steps: StepLogprobs | None,
) -> list[TokenLogprobs]:
    """Return log-probabilities of the ``new`` ids of rows: of ``steps``, or by a second pass."""
    if steps is not None:
        found = [steps.part(row, 0, len(ids), top) for row, ids in enumerate(new)]
        known = [each for each in found if each is not None]
        if len(known) == len(new):
            return known
    return await token_logprobs(model, prompts, new, top)
