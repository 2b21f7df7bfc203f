"""Compaction of a batch: rows that are finished leave the decode step, which goes on with fewer.

It happens between steps that are a multiple of ``COMPACTED_EVERY``, and only for rows whose end is
certainly known there, for all sizes of submits: so the dispatches of a text, and with them the
last bits of its numbers, are the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.nn import KVCache, SamplingState, move_rows
from gpt2_wgpu.tensors import dispose, keep

COMPACTED_EVERY = 4  # steps


class LiveRows(NotCopyable):
    """The rows that a step computes, with views of their part of cache and state.

    ``rows``: index in the batch of the row at each place. The rows of ``cache`` and ``state`` that
    stay are moved to the first places.
    """

    def __init__(self, cache: KVCache, state: SamplingState) -> None:
        self.cache, self.state = cache, state
        self.rows = tuple(range(cache.batch_size))
        self._whole = cache, state
        self._views: list[KVCache | SamplingState] = []

    def staying(self, step: int, ended: Sequence[int | None]) -> list[int]:
        """Return the rows that ``step`` computes.

        ``ended``: for each row of the batch, the number of steps that it took part in; None while
        it is live. A row stays until its end is known for certain: a submit has steps of one
        interval only, and at most one is in flight when the next is made.
        """
        known = step - COMPACTED_EVERY
        stay = [row for row in self.rows if (end := ended[row]) is None or end > known]
        # Each number of rows has a recording: where there are many, an eighth leaves at once.
        fewest = max(1, len(self.rows) // 8)
        is_time = stay and not step % COMPACTED_EVERY and len(self.rows) - len(stay) >= fewest
        return stay if is_time else list(self.rows)

    def compact(self, step: int, ended: Sequence[int | None]) -> bool:
        """Drop the rows that ``step`` does not compute → whether there were any."""
        stay = self.staying(step, ended)
        if len(stay) == len(self.rows):
            return False
        free = [p for p in range(len(stay)) if self.rows[p] not in stay]
        moved = [p for p in range(len(stay), len(self.rows)) if self.rows[p] in stay]
        moves = list(zip(moved, free, strict=True))
        for owner in self._whole:
            move_rows(owner, moves)
        rows = list(self.rows[: len(stay)])
        for source, target in moves:
            rows[target] = self.rows[source]
        self.rows = tuple(rows)
        self.close()
        cache, state = self._whole
        self._views = keep([cache.first_rows(len(rows)), state.first_rows(len(rows))])
        self.cache, self.state = self._views  # type: ignore[assignment]
        return True

    def close(self) -> None:
        """Dispose the views. Idempotent."""
        dispose(self._views)
        self._views = []
