"""RowGroup: rows of a continuous batch that share a decode step.

The rows are at the first places of a KV cache and a sampling state; each number of rows has a
recording of the step. A row joins at the next place; when one leaves, the last takes its place.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import NumericalError, OutOfGPUMemoryError
from gpt2_wgpu.models.batch_row import RowState
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_run import SUBMITS, settled_cache
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.models.row_plan import GroupKey
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.nn import (
    ALL_EXCLUDED,
    NOT_FINITE,
    RECENT,
    History,
    KVCache,
    SamplingOptions,
    SamplingState,
    move_rows,
    odds_width,
)
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.webgpu import Readback, Recording


@dataclass(frozen=True)
class _Submit:
    """Steps in flight, and the row at each place; ``begun``: when the GPU could begin."""

    steps: int
    begun: float
    rows: Sequence[RowState]
    readback: Readback


class _Places(NotCopyable):
    """KV cache, state, recordings and readbacks for a number of rows."""

    def __init__(self, cache: KVCache, state: SamplingState) -> None:
        self.cache, self.state = cache, state
        self.steps: dict[int, Recording] = {}  # by number of rows; the largest comes first
        reported = (state.position, state.finished, state.recent, state.odds)
        ranges = [(each.storage, 0, each.nbytes) for each in reported if each is not None]
        self._readbacks = [Readback(cache.device, ranges) for _ in range(SUBMITS)]
        self.idle = deque(self._readbacks)

    def close(self) -> None:
        """Free everything."""
        with ExitStack() as freed:  # each, even if another one raises
            freed.callback(dispose, [self.cache, self.state])
            for step in self.steps.values():  # in reverse: the first owns the shared buffers
                freed.callback(step.close)
            for readback in self._readbacks:
                freed.callback(readback.close)


class RowGroup(NotCopyable):
    """Rows that share a decode step.

    ``length``: positions of the cache for each row. ``most``: largest number of rows.
    """

    def __init__(self, model: CachedModel, key: GroupKey, length: int, most: int) -> None:
        self.key = key
        self.rows: list[RowState] = []
        self._model, self._length, self._most = model, length, most
        self._places: _Places | None = None
        self._no_memory_for = 0  # as many rows, to record their step; until one joins or leaves
        self._submits: deque[_Submit] = deque()
        self._later: Readback | None = None  # of the last of them, while it is only encoded
        self._pace = Pace(model.backbone.device)
        self._done_at = -math.inf

    @property
    def in_flight(self) -> int:
        """Number of submits in flight."""
        return len(self._submits)

    @property
    def is_full(self) -> bool:
        """Return whether another row needs a larger cache."""
        return self._places is None or len(self.rows) == self._places.cache.batch_size

    def room(self, shortest: bool) -> int:
        """Return the number of steps until the last row is full, or until the first one is."""
        rooms = [row.room for row in self.rows if row.room > 0]
        return min(rooms, default=0) if shortest else max(rooms, default=0)

    async def grow(self) -> None:
        """Allocate twice the places, and record their step; no submit may be in flight.

        OutOfGPUMemoryError: there is not enough memory; the rows stay as they are.
        """
        count = max(1, min(2 * len(self.rows), self._most))
        old, places = self._places, await self._new_places(count)
        try:
            await self._record(places, count)
        except BaseException:
            places.close()
            raise
        if old is not None:
            copies = _row_copies(old.cache, places.cache, len(self.rows), 0)
            places.cache.device.queue.flush(copies)
            for place, row in enumerate(self.rows):
                self._write(places.state, place, row)
            old.close()
        self._places = places

    async def _new_places(self, count: int) -> _Places:
        backbone, key = self._model.backbone, self.key
        with tidy("continuous batch"):  # an exception frees everything
            cache = await settled_cache(backbone, count, self._length)
            state = SamplingState.create(
                backbone.device,
                [History([0], 1)] * count,
                [1] * count,  # full
                SamplingOptions(penalties=key.penalties, rules=key.rules),
                key.stop_token_ids,
                key.candidates,
                excluded=[0] if key.counted else [],
                length=self._length,
                own_options=True,
                odds_width=0 if key.top_logprobs is None else odds_width(key.top_logprobs),
            )
            places = _Places(cache, state)
            keep([cache, state])
        return places

    def join(self, row: RowState, cache: KVCache) -> None:
        """Add ``row``, whose keys and values up to its last token are in ``cache`` [1, ...]."""
        places, place = self._places, len(self.rows)
        assert places is not None
        places.cache.device.queue.flush(_row_copies(cache, places.cache, 1, place))
        self._write(places.state, place, row)
        self.rows.append(row)
        self._no_memory_for = 0

    @staticmethod
    def _write(state: SamplingState, place: int, row: RowState) -> None:
        plan = row.plan
        state.write_row(place, row.history, plan.limit, plan.options, plan.excluded)

    def drop_ended(self) -> bool:
        """Remove the rows that have ended → whether there were any.

        One that others would have to be moved for stays as long as there is no memory for that.
        """
        ended = [place for place, row in enumerate(self.rows) if row.finish_reason]
        dropped = False
        for place in reversed(ended):
            last = len(self.rows) - 1
            if place != last:
                assert self._places is not None
                try:
                    for owner in (self._places.cache, self._places.state):
                        move_rows(owner, [(last, place)])
                except OutOfGPUMemoryError:
                    continue
                self.rows[place] = self.rows[last]
            self.rows.pop()
            dropped = True
        if dropped:
            self._no_memory_for = 0
        return dropped

    async def submit(self, shortest: bool, later: bool = False) -> None:
        """Submit steps of all rows; ``shortest``: no more than the first row has room for.

        ``later``: encode them; :meth:`begin` submits them.
        """
        begun, steps = time.perf_counter(), self._pace.steps(self.room(shortest))
        recording = await self._recorded()
        recording.replay(steps)
        assert self._places is not None
        readback = self._places.idle.popleft()
        if later:
            self._places.cache.device.queue.encode_pending()
            self._later = readback
        else:
            readback.begin()
        for row in self.rows:
            row.in_flight += steps
        self._submits.append(_Submit(steps, begun, tuple(self.rows), readback))

    async def _recorded(self) -> Recording:
        """Return the recording of the step of as many rows as there are.

        Without memory for it, that of all places, which computes the unused ones, too; tried again
        for other rows.
        """
        places, count = self._places, len(self.rows)
        assert places is not None
        if count not in places.steps and count != self._no_memory_for:
            try:
                await self._record(places, count)
            except OutOfGPUMemoryError:
                self._no_memory_for = count
        return places.steps[count if count in places.steps else places.cache.batch_size]

    async def _record(self, places: _Places, rows: int) -> None:
        """Record the step of the first ``rows`` places; that of all comes first."""
        workspace = next((step.workspace for step in places.steps.values()), ())
        with tidy("step"):
            cache, state = places.cache.first_rows(rows), places.state.first_rows(rows)
            step = DecodeStep(self._model, cache, state, TokenChoice(), list, workspace)
            recording = await step.recorded()
        assert recording is not None
        places.steps[rows] = recording

    def begin(self) -> None:
        """Submit the steps that are only encoded, if there are any."""
        later, self._later = self._later, None
        if later is not None:
            # Until now other steps ran, whose time is not that of these.
            self._submits[-1] = replace(self._submits[-1], begun=time.perf_counter())
            later.begin()

    async def collect(self, then: Callable[[], None]) -> tuple[int, int]:
        """Wait for the oldest submit; give the rows their new ids → new ids, and steps.

        ``then`` is called as soon as the GPU is done.
        """
        submit = self._submits[0]
        data = await submit.readback.finish()
        then()
        self._submits.popleft()
        assert self._places is not None
        self._places.idle.append(submit.readback)
        now = time.perf_counter()
        self._pace.took(now - max(submit.begun, self._done_at), submit.steps)
        self._done_at = now
        position, finished, recent = (part.cast("I") for part in data[:3])
        new = 0
        for place, row in enumerate(submit.rows):
            row.in_flight -= submit.steps
            ids = range(row.position, position[place] + 1)
            if row.logprobs is not None and row.finish_reason is None:
                try:
                    row.logprobs.append(0, data[3], place, ids)
                except NumericalError as error:
                    row.end("error", error)
            new += row.extend([recent[place * RECENT + p % RECENT] for p in ids])
            if finished[place] in (NOT_FINITE, ALL_EXCLUDED):
                row.end("error", _numerical_error(finished[place], position[place]))
        return new, submit.steps

    def close(self) -> None:
        """Free everything; submits in flight are forgotten."""
        for row in self.rows:
            row.in_flight = 0
        self._submits.clear()
        self._later = None
        self.rows = []
        places, self._places = self._places, None
        if places is not None:
            places.close()


def _row_copies(
    source: KVCache, target: KVCache, rows: int, place: int
) -> list[tuple[object, int, object, int, int]]:
    """Return the copies of the first ``rows`` of a cache to ``place`` of one of equal length."""
    pairs = zip(source.row_slices(), target.row_slices(), strict=True)
    return [
        (old.storage.buffer, first, new.storage.buffer, begin + place * nbytes, rows * nbytes)
        for (old, first, nbytes), (new, begin, _) in pairs
    ]


def _numerical_error(finished: int, position: int) -> NumericalError:
    if finished == NOT_FINITE:
        return not_finite(f"the logits of this row at position {position} are not finite")
    return NumericalError(
        f"every token of this row is excluded at position {position}: its rules leave none"
    )
