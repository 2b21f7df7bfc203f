"""Prompt lookup: drafts from earlier text, verified in one step (Saxena 2023).

A text often repeats parts of itself or of its prompt. The tokens that followed the last occurrence
of its newest tokens are a draft: a step computes them together with the newest token and samples a
token after each. Every position has its own random number, so the sampled tokens are those of plain
decoding as long as the draft agrees with them: the text is the same, in fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers import Sampler, SpeculativeSampler, runs_in_python, runs_its_own_loop
from gpt2_wgpu.sampling_parameters import MAX_DRAFT
from gpt2_wgpu.validation import integer

NGRAMS = (3, 2)  # sizes of the n-grams looked up, longest first


@dataclass
class DraftStats:
    """Numbers of drafted tokens, and of those that were accepted."""

    drafted: int = 0
    accepted: int = 0


class PromptLookup:
    """Index of the n-grams of one text."""

    def __init__(self) -> None:
        self._following: dict[tuple[int, ...], int] = {}  # place after the last occurrence
        self._indexed = 0

    def draft(self, ids: list[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow ``ids``, a continuation of earlier ones.

        If the draft reaches the end of the text, it goes on with itself: a loop is continued.
        """
        for end in range(self._indexed + 1, len(ids)):
            for size in NGRAMS:
                if end >= size:
                    self._following[tuple(ids[end - size : end])] = end
        self._indexed = max(self._indexed, len(ids) - 1)
        for size in NGRAMS:
            place = self._following.get(tuple(ids[-size:])) if len(ids) > size else None
            if place is not None:
                text = list(ids[place:])
                while len(text) < most:
                    text += text
                return text[: max(most, 0)]
        return []


class PromptLookups:
    """Drafts of all rows of a batch, from the text of each."""

    def __init__(self, rows: int) -> None:
        self._rows = [PromptLookup() for _ in range(rows)]

    async def drafts(
        self, live: Sequence[int], texts: Sequence[list[int]], rooms: Sequence[int]
    ) -> list[list[int]]:
        """Return a draft of up to ``rooms`` tokens after each of ``texts``."""
        rows = zip(live, texts, rooms, strict=True)
        return [
            self._rows[which].draft(text, room) if room > 0 else [] for which, text, room in rows
        ]

    def compact(self, live: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        """Do nothing: each row of the batch has its index."""

    def close(self) -> None:
        """Do nothing: there is no GPU memory."""


def check_prompt_lookup(tokens: int, sampler: Sampler, processors: Sequence[Any]) -> int:
    """Return ``tokens``, the length of drafts.

    InvalidArgumentError if it is out of range, or with a choice in Python.
    """
    tokens = integer("prompt_lookup_num_tokens", tokens, 0, MAX_DRAFT)
    if tokens and isinstance(sampler, SpeculativeSampler):
        raise InvalidArgumentError(
            "prompt_lookup_num_tokens cannot be combined with a SpeculativeSampler, whose drafts "
            "are those of a model; compile with 0"
        )
    if tokens and (processors or runs_in_python(sampler) or runs_its_own_loop(sampler)):
        raise InvalidArgumentError(
            "prompt_lookup_num_tokens cannot be combined with logits processors, or a sampler with "
            "a loop or choice in Python: they need each token before the next; compile with 0"
        )
    return tokens
