"""LookupRun: the counterpart of ``DecodeRun`` whose steps verify drafts of several tokens.

Drafts are taken from the text (prompt_lookup.py), or made by a smaller model (draft_run.py).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_run import Result, filled_cache
from gpt2_wgpu.models.decode_step import dispose_unkept
from gpt2_wgpu.models.draft_run import DraftRun
from gpt2_wgpu.models.kept_runs import DecodeInputs, KeptRuns
from gpt2_wgpu.models.live_rows import LiveRows, has_own_steps, is_time, moved_to_front
from gpt2_wgpu.models.prompt_lookup import DraftStats, PromptLookups
from gpt2_wgpu.models.replay import replay_texts
from gpt2_wgpu.models.verify_step import VerifyStep
from gpt2_wgpu.nn import (
    ALL_EXCLUDED,
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    KVCache,
    move_rows,
)
from gpt2_wgpu.tensors import dispose, keep, tidy


class Drafter(Protocol):
    """Protocol of what proposes tokens; ``live``: the rows of the batch, at each place."""

    async def drafts(
        self, live: Sequence[int], texts: Sequence[list[int]], rooms: Sequence[int]
    ) -> list[list[int]]:
        """Return a draft of up to ``rooms`` tokens after each of ``texts``."""

    def compact(self, live: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        """Take ``live`` rows that remain, after ``moves`` of places."""

    def close(self) -> None:
        """Free everything. Idempotent."""


class LookupRun(NotCopyable):
    """KV cache and steps of a decoding loop with drafts, on one device.

    A step has room for the newest token and a draft for each row, or, where no row has a draft,
    for the newest token only. The result is read before the next step. Finished rows leave it.
    """

    is_recorded = False  # in the sense of DecodeRun: steps are not submitted ahead
    steps_at_once = 1

    def __init__(
        self,
        model: CachedModel,
        cache: KVCache,
        inputs: DecodeInputs,
        most: int,
        token_ids: Callable[[], list[list[int]]],
        stats: DraftStats,
        drafter: Drafter,
    ) -> None:
        self.device = cache.device
        self.in_flight = 0
        self._open = ExitStack()
        self._open.callback(dispose_unkept if cache.kept else dispose, cache)
        keep(cache)
        self._model, self._inputs, self._most = model, inputs, most
        self._whole = self._cache = cache
        self._views: list[KVCache] = []  # of the rows that are live
        self._live: tuple[int, ...] = tuple(range(len(inputs.rows)))  # at each place
        self._keeps_rows = not has_own_steps(model)  # user code may distinguish them by index
        self._submits = 0
        self._token_ids = token_ids
        self._stats = stats
        self._drafter = drafter
        self._open.callback(drafter.close)
        self._steps: dict[int, VerifyStep] = {}
        self._finished = [
            LIVE if len(row.ids) < limit else FULL
            for row, limit in zip(inputs.rows, inputs.limits, strict=True)
        ]
        self._drafts: list[list[int]] = []
        self._lengths: list[int] = []
        self._step: VerifyStep | None = None
        self._begun = 0.0

    @classmethod
    async def start(
        cls,
        model: CachedModel,
        inputs: DecodeInputs,
        most: int,
        token_ids: Callable[[], list[list[int]]],
        stats: DraftStats,
        draft_model: CachedModel | None = None,
    ) -> LookupRun:
        """Compute all tokens of the rows except the last of each; drafts have up to ``most``.

        They are those of ``draft_model``; without it, from the text.
        """
        with ExitStack() as undo, tidy("generation"):
            drafter: Drafter = PromptLookups(len(inputs.rows))
            if draft_model is not None:
                drafter = await DraftRun.start(draft_model, inputs)
                undo.callback(drafter.close)
            prefill = await filled_cache(model, inputs, None)
            prefill.close()
            run = cls(model, prefill.cache, inputs, most, token_ids, stats, drafter)
            undo.callback(run.close)
            if any(len(row.ids) > row.prompt for row in inputs.rows):  # after a loss of the device
                step = await run._verify_step(1)
                await replay_texts(model, inputs.rows, LiveRows(prefill.cache, step.state), None)
            undo.pop_all()
            return run

    async def compact(self, ended: Sequence[int | None]) -> None:
        """Drop finished rows before the next step, if it is time; see live_rows.py.

        They stay as long as there is no memory for the moves.
        """
        stay = [row for row in self._live if ended[row] is None]
        if self._keeps_rows or not is_time(self._submits, len(self._live), len(stay)):
            return
        live, moves = moved_to_front(self._live, stay)
        try:
            move_rows(self._whole, moves)
        except OutOfGPUMemoryError:
            return
        self._drafter.compact(live, moves)
        self._close_steps()
        self._live = live
        dispose(self._views)
        self._views = [keep(self._whole.first_rows(len(stay)))]
        self._cache = self._views[0]

    async def submit(self, steps: int, check: bool = False) -> None:
        """Submit one step; :meth:`result` returns the state after it."""
        texts = self._token_ids()
        rows = [texts[which] for which in self._live]
        self._begun = time.perf_counter()
        self._submits += 1
        self._lengths = [len(row) for row in rows]
        rooms = [  # one is sampled after the draft, too
            max(min(self._most, self._inputs.limits[which] - len(row) - 1), 0)
            if self._finished[which] == LIVE
            else 0
            for which, row in zip(self._live, rows, strict=True)
        ]
        tokens, self._drafts = self._most + 1, [[] for _ in rows]
        if any(rooms) and max(self._lengths) - 1 + tokens <= self._cache.length:
            self._drafts = await self._drafter.drafts(self._live, rows, rooms)
        if not any(self._drafts):
            tokens = 1
        self._step = await self._verify_step(tokens)
        given = [[row[-1], *draft] for row, draft in zip(rows, self._drafts, strict=True)]
        self._step.write_texts(rows, self._drafts)
        await self._step.submit(given, [length - 1 for length in self._lengths])
        self.in_flight = 1

    async def _verify_step(self, tokens: int) -> VerifyStep:
        """Return the step of ``tokens`` per row, recorded at its first use."""
        if tokens not in self._steps:
            step = VerifyStep(self._model, self._cache, self._inputs, tokens, self._live)
            self._steps[tokens] = step
            await step.record()
        return self._steps[tokens]

    async def result(self) -> Result:
        """Wait for the step; return the state after it."""
        assert self._step is not None
        sampled, flags = await self._step.result()
        self.in_flight = 0
        recent = array("I", [0] * RECENT * len(self._drafts))
        tokens = self._step.tokens
        for place, (which, draft) in enumerate(zip(self._live, self._drafts, strict=True)):
            if self._finished[which] != LIVE:
                continue
            row = slice(place * tokens, (place + 1) * tokens)
            new = self._accepted(place, draft, sampled[row], flags[row])
            for position, token in enumerate(new, self._lengths[place]):
                recent[place * RECENT + position % RECENT] = token
            self._lengths[place] += len(new)
        return Result(
            1,
            time.perf_counter() - self._begun,
            self._live,
            memoryview(array("I", [length - 1 for length in self._lengths])),
            memoryview(array("I", [self._finished[which] for which in self._live])),
            memoryview(recent),
        )

    def _accepted(
        self, place: int, draft: Sequence[int], sampled: Sequence[int], flags: Sequence[int]
    ) -> list[int]:
        """Return the tokens sampled at ``place`` up to the first that its draft does not have.

        They end, too, at a stop token and where the row is full.
        """
        inputs, which, new = self._inputs, self._live[place], []
        room = inputs.limits[which] - self._lengths[place]
        for token, flag, drafted in zip(sampled, flags, [*draft, None], strict=False):
            if flag in (NOT_FINITE, ALL_EXCLUDED):
                self._finished[which] = flag
                break
            new.append(token)
            if token in inputs.stop_token_ids:
                self._finished[which] = STOPPED
            elif len(new) == room:
                self._finished[which] = FULL
            if token != drafted or self._finished[which] != LIVE:
                break
        self._stats.drafted += len(draft)
        self._stats.accepted += sum(
            token == drafted for token, drafted in zip(new, draft, strict=False)
        )
        return new

    def close(self, kept_runs: KeptRuns | None = None) -> None:
        """Free everything. Idempotent."""
        self._close_steps()
        dispose(self._views)
        self._open.close()

    def _close_steps(self) -> None:
        steps, self._steps = self._steps, {}
        for step in steps.values():
            step.close()
