"""Contrastive search, as a sampler (Su et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.python_sampling import awaited, rows_of_prompt
from gpt2_wgpu.samplers.sampler import Sampler
from gpt2_wgpu.samplers.selected_rows import selected
from gpt2_wgpu.sampling_parameters import MAX_BEAMS
from gpt2_wgpu.tensors import Tensor, dispose, ops, tensor, tidy
from gpt2_wgpu.text.token_arrays import as_array, rows_of_mask
from gpt2_wgpu.validation import Range

K = Range(1, MAX_BEAMS, whole=True)
ALPHA = Range(0, 1)


class ContrastiveSampler(Sampler):
    """Contrastive search: of the ``k`` most probable tokens, the one that repeats least.

    The score of a token is ``(1 - alpha) * probability - alpha * similarity``: the largest cosine
    similarity of its hidden state with those of the text before it (transformers' ``penalty_alpha``
    and ``top_k``). Logits processors cannot be combined with it. Nothing is random.

    Args:
        k: number of candidates, 1 (greedy search) to 32.
        alpha: weight of the similarity, 0 (greedy search) to 1.
        temperature: divisor of the logits.
        **rules: penalties and token rules of `Sampler`, which change the probabilities; not
            ``min_p`` and ``typical_p``. An excluded token is no candidate.

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    search_obeys_rules = True

    def __init__(
        self, k: int = 5, alpha: float = 0.6, *, temperature: float = 1.0, **rules: Any
    ) -> None:
        super().__init__(temperature, **rules)
        self.k = int(K.check("k", k))
        self.alpha = ALPHA.check("alpha", alpha)
        self.checked()

    def checked(self) -> ContrastiveSampler:
        """Return the sampler; InvalidArgumentError for an attribute out of range."""
        K.check("k", self.k)
        ALPHA.check("alpha", self.alpha)
        if self.min_p or self.typical_p != 1:
            raise InvalidArgumentError(
                "contrastive search does not sample: omit min_p and typical_p"
            )
        if self.temperature < 1e-30:
            raise InvalidArgumentError(
                "contrastive search has no temperature 0: use 1, or k=1 for greedy search"
            )
        return self

    def best_of(self, probabilities: Sequence[float], similarities: Sequence[float]) -> int:
        """Return the index of the best candidate; the first of equal ones."""
        scores = [
            (1 - self.alpha) * probability - self.alpha * similarity
            for probability, similarity in zip(probabilities, similarities, strict=True)
        ]
        return scores.index(max(scores))

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
        """Async counterpart of a call: KerasHub's interface.

        ``hidden_states`` [B, T, D]: those of the prompt. ``cache``: None, a tensor or ``KVCache``
        with B rows, or a list, tuple or dict of them; ``next`` gets B, then ``k`` rows per prompt.
        """
        if hidden_states is None:
            raise InvalidArgumentError("ContrastiveSampler needs the hidden_states of the prompt")
        count = self.checked().k
        if self.penalties().any or self.rules().any:
            raise InvalidArgumentError(
                "penalties and token rules are not supported by a call of the sampler: use generate"
            )
        rows = rows_of_prompt(prompt)
        given = [[False] * len(row) for row in rows] if mask is None else rows_of_mask(mask)
        stops, stopped = {*(stop_token_ids or ())}, [False] * len(rows)
        async with tidy("candidates"):
            texts = [row[:index] for row in await _values(hidden_states)]
            logits, _, cache = await awaited(next(as_array(rows, "int32"), cache, index))
            chosen = [*range(len(rows))]
            for place in range(index, len(rows[0]) if rows else 0):
                if all(stopped):
                    break
                values, ids = await self._candidates(logits)
                beams = [row for row in chosen for _ in range(count)]
                tokens = [
                    row[place] if given[which][place] else token
                    for which, row in enumerate(rows)
                    for token in ids[chosen[which]]
                ]
                trial = [
                    [*rows[which][:place], tokens[which * count + c], *rows[which][place + 1 :]]
                    for which in range(len(rows))
                    for c in range(count)
                ]
                cache = selected(cache, beams)
                found = await awaited(next(as_array(trial, "int32"), cache, place + 1))
                logits, hidden, cache = found
                newest = await _values(hidden)
                for which, row in enumerate(rows):
                    group = newest[which * count : (which + 1) * count]
                    closest = [
                        max((_cosine(h, old) for old in texts[which]), default=-1.0) for h in group
                    ]
                    best = self.best_of(values[chosen[which]], closest)
                    chosen[which] = which * count + best
                    row[place] = tokens[chosen[which]]
                    texts[which].append(group[best])
                    stopped[which] |= row[place] in stops and not given[which][place]
            dispose(cache)
        return as_array(rows, "int32")

    async def _candidates(self, logits: Any) -> tuple[list[list[float]], list[list[int]]]:
        """Return probabilities and ids of the best tokens of each row of ``logits`` [R, V]."""
        with tidy("candidates"):
            probabilities = await awaited(self.compute_probabilities(logits))
            if not isinstance(probabilities, Tensor):
                probabilities = tensor(probabilities, "float32")
            values, ids = ops.top_k(probabilities, self.k)
            return await _values(values), await _values(ids)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"k": self.k, "alpha": self.alpha, **super().get_config()}


async def _values(x: Any) -> Any:
    """Return a tensor or array as nested lists."""
    if isinstance(x, Tensor):
        return (await x.data()).tolist()
    return x.tolist() if hasattr(x, "tolist") else x


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the cosine similarity of two vectors."""
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
