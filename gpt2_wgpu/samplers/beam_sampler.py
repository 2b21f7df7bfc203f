"""Beam search, as a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.beams import Beam, Beams, Continuations
from gpt2_wgpu.samplers.forced_words import ForcedBeams, ForcedWords
from gpt2_wgpu.samplers.python_sampling import awaited, rows_of_prompt
from gpt2_wgpu.samplers.sampler import Sampler
from gpt2_wgpu.samplers.selected_rows import selected
from gpt2_wgpu.sampling_parameters import MAX_BEAMS
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, dispose, ops, tensor, tidy
from gpt2_wgpu.text.token_arrays import as_array, rows_of_mask
from gpt2_wgpu.validation import Range

NUM_BEAMS = Range(1, MAX_BEAMS, whole=True)
LENGTH_PENALTY = Range(-50, 50)  # powers of lengths up to 2**20 are finite
_LOWEST = -1e9  # log-probability of a token with probability 0


class BeamSampler(Sampler):
    """Beam search: the most probable text that ``num_beams`` parallel texts find.

    Beams end one by one, and are compared by ``log-probability / new tokens ** length_penalty``,
    as in transformers (in KerasHub all beams run to the last one's end, and log-probabilities are
    compared). Logits processors cannot be combined with it. Nothing is random.

    Args:
        num_beams: number of beams, 1 (greedy search) to 32.
        return_all_beams: whether to return all beams of a prompt, best first, instead of the
            best: ``generate`` then returns a list for one prompt, and for packed ids ``scores``
            [B * num_beams], too.
        length_penalty: exponent of the length, -50 to 50; above 0 favours longer texts.
        early_stopping: when a prompt's search ends: True: with ``num_beams`` finished beams;
            False: when the running beams are unlikely to become better; "never": when they cannot.
        temperature: divisor of the logits.
        force_words_ids: words that the new text contains, as lists of token ids; a list of words
            instead of one word: one of them. Beams with a part of the words are kept beside
            likelier ones, as in transformers.
        **rules: penalties and token rules of `Sampler`, which change log-probabilities, and with
            them the scores, as in transformers; not ``min_p`` and ``typical_p``.

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    search_obeys_rules = True

    def __init__(
        self,
        num_beams: int = 5,
        return_all_beams: bool = False,
        *,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        temperature: float = 1.0,
        force_words_ids: Sequence[Any] | None = None,
        **rules: Any,
    ) -> None:
        super().__init__(temperature, **rules)
        self.num_beams = int(NUM_BEAMS.check("num_beams", num_beams))
        self.return_all_beams = bool(return_all_beams)
        self.length_penalty = LENGTH_PENALTY.check("length_penalty", length_penalty)
        self.early_stopping = early_stopping
        self.force_words_ids = force_words_ids
        self.checked()

    def checked(self) -> BeamSampler:
        """Return the sampler; InvalidArgumentError for an attribute out of range."""
        NUM_BEAMS.check("num_beams", self.num_beams)
        LENGTH_PENALTY.check("length_penalty", self.length_penalty)
        self.forced_words()
        given = self.early_stopping
        if not isinstance(given, bool) and not (isinstance(given, str) and given == "never"):
            raise InvalidArgumentError(
                f'early_stopping must be True, False or "never", not {shown(given)}'
            )
        if self.min_p or self.typical_p != 1:
            raise InvalidArgumentError("beam search does not sample: omit min_p and typical_p")
        if self.temperature < 1e-30:
            raise InvalidArgumentError(
                "beam search has no temperature 0: use 1, or num_beams=1 for greedy search"
            )
        return self

    def forced_words(self) -> ForcedWords:
        """Return the words of ``force_words_ids``; InvalidArgumentError for invalid ones."""
        return ForcedWords.of(self.force_words_ids)

    def beams(self, room: int, stop_token_ids: Sequence[int]) -> Beams:
        """Return the beams of one prompt with ``room`` for new tokens."""
        options = room, stop_token_ids, self.length_penalty, self.early_stopping
        words = self.forced_words()
        if words.choices:
            return ForcedBeams(words, self.num_beams, *options)
        return Beams(self.num_beams, *options)

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

        ``cache``: None, a tensor or ``KVCache`` with B rows, or a list, tuple or dict of them;
        ``next`` gets ``num_beams`` rows per prompt.

        Returns:
            ``prompt`` [B, T] with the tokens of the best beam; with ``return_all_beams``
            [B, num_beams, T] and the scores [B, num_beams], best first.
        """
        count = self.checked().num_beams
        if self.forced_words().choices or self.penalties().any or self.rules().any:
            raise InvalidArgumentError(
                "penalties, token rules and force_words_ids are not supported by a call of the "
                "sampler: use generate"
            )
        rows = rows_of_prompt(prompt)
        given = [[False] * len(row) for row in rows] if mask is None else rows_of_mask(mask)
        stops = list(stop_token_ids or ())
        searches = [self.beams(len(row) - index, stops) for row in rows]
        async with tidy("beams"):
            cache = selected(cache, [row for row in range(len(rows)) for _ in range(count)])
            for place in range(index, len(rows[0]) if rows else 0):
                if all(search.done for search in searches):
                    break
                texts = [
                    text
                    for row, search in zip(rows, searches, strict=True)
                    for text in _texts(row, index, search.running, count)
                ]
                logits, _, cache = await awaited(next(as_array(texts, "int32"), cache, place))
                found = await self._continuations(logits, count + len(stops))
                parents: list[int] = []
                for which, search in enumerate(searches):
                    first = which * count
                    moved = [*range(len(search.running))]
                    if search.done:
                        moved = []
                    elif given[which][place]:
                        search.force(rows[which][place])
                    else:
                        moved = search.advance(found[first : first + count])
                    moved += [0] * (count - len(moved))
                    parents += [first + parent for parent in moved]
                cache = selected(cache, parents)
            dispose(cache)
        best = [
            _texts(row, index, search.finished, count)
            for row, search in zip(rows, searches, strict=True)
        ]
        if not self.return_all_beams:
            return as_array([texts[0] for texts in best], "int32")
        scores = [[beam.score for beam in search.finished] for search in searches]
        return tensor(best, "int32"), tensor(scores, "float32")

    async def _continuations(self, logits: Any, most: int) -> list[Continuations]:
        """Return the ``most`` best tokens of each row of ``logits`` [R, V]."""
        with tidy("continuations"):
            probabilities = await awaited(self.compute_probabilities(logits))
            if not isinstance(probabilities, Tensor):
                probabilities = tensor(probabilities, "float32")
            values, ids = ops.top_k(probabilities, min(most, probabilities.shape[-1]))
            found: Any = (await values.data()).tolist()
            tokens: Any = (await ids.data()).tolist()
            return [
                [(token, math.log(p) if p > 0 else _LOWEST) for token, p in zip(*row, strict=True)]
                for row in zip(tokens, found, strict=True)
            ]

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {
            "num_beams": self.num_beams,
            "return_all_beams": self.return_all_beams,
            "length_penalty": self.length_penalty,
            "early_stopping": self.early_stopping,
            **({"force_words_ids": self.force_words_ids} if self.force_words_ids else {}),
            **super().get_config(),
        }


def _texts(row: list[int], start: int, beams: Sequence[Beam], count: int) -> list[list[int]]:
    """Return ``row`` with the tokens of each beam from ``start`` on, ``count`` rows."""
    texts = [[*row[:start], *beam.tokens, *row[start + len(beam.tokens) :]] for beam in beams]
    return texts + texts[:1] * (count - len(texts))
