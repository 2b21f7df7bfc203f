"""Compaction of a batch: rows that are finished leave the decode step, which goes on with fewer.

It happens between steps that are a multiple of ``COMPACTED_EVERY``, and only for rows whose end is
certainly known there, for all sizes of submits: so the dispatches of a text, and with them the
last bits of its numbers, are the same in every run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.hooks import hooks_of
from gpt2_wgpu.models.kept_runs import has_own_methods
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.nn import KVCache, SamplingState, move_rows
from gpt2_wgpu.tensors import dispose, keep

COMPACTED_EVERY = 4  # steps


def has_own_steps(model: CachedModel) -> bool:
    """Return whether a step calls no user code, so that its rows may change their places."""
    return (
        not nn.kernels_are_chosen()
        and hooks_of(model.backbone) is None
        and has_own_methods(model.backbone)
        and all(is_default(chosen(model, name)) for name in ("build_cache", "call_with_cache"))
    )


def is_time(step: int, rows: int, staying: int) -> bool:
    """Return whether ``rows`` are compacted to those ``staying`` before ``step``.

    Each number of rows has a recording: where there are many, an eighth leaves at once.
    """
    return staying > 0 and not step % COMPACTED_EVERY and rows - staying >= max(1, rows // 8)


def moved_to_front(
    rows: Sequence[int], stay: Collection[int]
) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Return those of ``rows`` that ``stay``, as they are after the moves of places returned."""
    count = len(stay)
    free = [place for place in range(count) if rows[place] not in stay]
    moved = [place for place in range(count, len(rows)) if rows[place] in stay]
    moves = list(zip(moved, free, strict=True))
    result = list(rows[:count])
    for source, target in moves:
        result[target] = rows[source]
    return tuple(result), moves


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
        return stay if is_time(step, len(self.rows), len(stay)) else list(self.rows)

    def compact(self, step: int, ended: Sequence[int | None]) -> bool:
        """Drop the rows that ``step`` does not compute → whether there were any.

        They stay as long as there is no memory for the moves.
        """
        stay = self.staying(step, ended)
        if len(stay) == len(self.rows):
            return False
        rows, moves = moved_to_front(self.rows, stay)
        try:
            for owner in self._whole:
                move_rows(owner, moves)  # to places of dropped rows: the others are unchanged
        except OutOfGPUMemoryError:
            return False
        self.rows = rows
        self.close()
        cache, state = self._whole
        self._views = keep([cache.first_rows(len(rows)), state.first_rows(len(rows))])
        self.cache, self.state = self._views  # type: ignore[assignment]
        return True

    def close(self) -> None:
        """Dispose the views. Idempotent."""
        dispose(self._views)
        self._views = []
