"""``ContinuousBatch``: rows that join and leave a batch between steps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Self

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import (
    DeviceLostError,
    InvalidArgumentError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.models.batch_row import MOST_ROWS, BatchRow, RowState, check_default_steps
from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.control import ABORTED, Control
from gpt2_wgpu.models.generate_arguments import SamplerLike, StopTokens
from gpt2_wgpu.models.generation_details import check_top_logprobs
from gpt2_wgpu.models.hooks import check_no_hooks
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.row_group import RowGroup
from gpt2_wgpu.models.row_plan import row_plan
from gpt2_wgpu.models.row_prefill import RowPrefill
from gpt2_wgpu.models.turns import Caller, Turn
from gpt2_wgpu.nn import round_up
from gpt2_wgpu.validation import instance, integer
from gpt2_wgpu.webgpu.waiting import can_submit_ahead


@dataclass(frozen=True)
class BatchStats:
    """Counts of a continuous batch."""

    waiting: int  # rows in the queue
    running: int  # rows with a place, that of a prefill included
    tokens: int  # new ids since the start
    steps: int  # decode steps since the start


class ContinuousBatch(NotCopyable):
    """Batch whose rows join and leave between steps, for servers.

    An async context manager. One task of the running event loop computes while there are rows.
    Prompts are computed alone, one chunk between two submits of steps, as ``generate`` computes
    them; then rows share steps, each with its own sampling options and seed. Rows with other
    penalties or rules than the rest take turns with them. A row's ids are those of ``generate`` for
    its prompt alone, up to rounding (docs/continuous-batching.md).

    While it has rows, other generations of the model wait, as described in docs/control.md. For one
    that waits it admits no further rows: it finishes those that run, lets the other run, and goes
    on.

    The KV cache grows with the rows, in powers of two up to ``max_rows``, and is freed by
    :meth:`close`. A lost device is replaced, once in a while, and all rows go on.
    """

    def __init__(self, lm: CausalLM, max_rows: int = 16, max_length: int | None = None) -> None:
        """Compute nothing yet.

        Args:
            lm: a model; its ``compile`` and generation configuration give the defaults of rows.
            max_rows: rows that are computed at once; others wait, first come, first served.
            max_length: limit of all tokens of a row, with its prompt; default: the context. The
                cache has memory for so many tokens in each row.

        Raises:
            InvalidArgumentError: a step of the pipeline of ``lm`` is replaced, or it has logits
                processors.
        """
        instance("lm", lm, CausalLM)
        check_default_steps(lm)
        self._lm, self._backbone = lm, lm.backbone
        self._max_rows = integer("max_rows", max_rows, 1, MOST_ROWS)
        context = lm.backbone.config.n_positions
        self._max_length = context if max_length is None else lm.total_length(max_length, [])
        self._length = min(round_up(self._max_length, 16), context)  # of the cache
        self._waiting: deque[RowState] = deque()
        self._joining: RowState | None = None
        self._chunks: AsyncGenerator[None, None] | None = None  # of its prefill
        self._prefill: RowPrefill | None = None
        self._groups: deque[RowGroup] = deque()  # the next to submit comes first
        self._in_flight: deque[RowGroup] = deque()  # of each submit
        self._awaits_memory = False  # until a row leaves
        self._device = lm.backbone.device
        self._weights_version = lm.backbone.weights_version  # of the recordings and caches
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._control = Control()  # of the wait for the model's turn
        self._has_turn = False
        self._callers: list[Caller] = []  # who submitted rows meanwhile
        self._due = 0  # rows that the turn admits although others wait for it
        self._tokens = self._steps = 0

    def __str__(self) -> str:
        return f"ContinuousBatch of up to {self._max_rows} rows: {self.stats()}"

    @named("ContinuousBatch.submit")
    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int | None = None,
        sampler: SamplerLike | None = None,
        seed: int | None = None,
        stop_token_ids: StopTokens = "auto",
        top_logprobs: int | None = None,
    ) -> BatchRow:
        """Add a row; returns at once. Call it in a running event loop.

        Args:
            prompt_ids: at least one id; no start token is added.
            max_new_tokens: limit of the new ids; default: that of the model's
                ``generation_limits``, or up to ``max_length``.
            sampler: as in ``generate``; one that chooses on the GPU.
            seed: as in ``generate``.
            stop_token_ids: as in ``generate``.
            top_logprobs: number of the most likely ids that ``row.logprobs()`` has for each new id,
                with its log-probability; default: no log-probabilities.

        Raises:
            ContextLengthError: the prompt fills ``max_length``.
            DisposedTensorError: the model was disposed.
            InvalidArgumentError: an argument is invalid, the batch is closed, or there is no
                running event loop.
        """
        self._backbone.check_usable()
        check_no_hooks(self._backbone, "a ContinuousBatch")
        if self._closed:
            raise InvalidArgumentError("this ContinuousBatch is closed: make a new one")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidArgumentError(
                "a ContinuousBatch computes in the running event loop, and there is none: call "
                "submit in an `async def` function that asyncio.run runs"
            ) from None
        plan = row_plan(
            self._lm, self._max_length, prompt_ids, max_new_tokens, sampler, seed, stop_token_ids
        )
        if top_logprobs is not None:
            plan = plan.with_logprobs(check_top_logprobs(top_logprobs, self._lm), self._lm)
        row = RowState(plan)
        self._waiting.append(row)
        if not self._has_turn:
            self._callers.append(row.caller)
        if self._task is None or self._task.done():
            # An empty context: memory scopes of the caller must not take what rows share.
            self._task = Context().run(loop.create_task, self._run())
        return BatchRow(row)

    def stats(self) -> BatchStats:
        """Return the numbers of rows now, and of tokens and steps since the start."""
        waiting = sum(row.finish_reason is None for row in self._waiting)
        running = sum(row.finish_reason is None for row in self._placed())
        return BatchStats(waiting, running, self._tokens, self._steps)

    def _placed(self) -> list[RowState]:
        """Return the rows that have a place, ended ones included."""
        joining = [] if self._joining is None else [self._joining]
        return [*(row for group in self._groups for row in group.rows), *joining]

    def _rows(self) -> list[RowState]:
        return [*self._placed(), *self._waiting]

    # --- the task -------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Compute until there are no rows."""
        try:
            while self._rows() or self._in_flight:
                await self._run_turn()
            if self._closed:  # the caller of close may have been cancelled
                await self._free()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else None
            placed = self._placed()
            await self._free()  # rows may be submitted meanwhile
            for row in (*placed, *self._waiting):
                row.end(ABORTED if failure is None else "error", failure)
            self._waiting.clear()
            if failure is None:
                raise

    async def _run_turn(self) -> None:
        """Compute in one turn of the model until there are no rows, or others are due."""
        self._callers[:] = [row.caller for row in self._waiting]
        turn = self._lm.turns.turn(self._control, others=self._callers)
        try:
            self._has_turn = await turn.take()
            if self._weights_version != self._backbone.weights_version and not self._placed():
                await self._free()
                self._weights_version = self._backbone.weights_version
            self._callers.clear()
            # Where others always wait, each turn has to admit some.
            self._due = min(len(self._waiting), self._max_rows)
            while self._rows() or self._in_flight:
                try:
                    await self._round(turn)
                except DeviceLostError:
                    await self._recover()
                if not (self._placed() or self._in_flight or self._may_admit(turn)):
                    break
        finally:
            self._has_turn = False
            turn.give_back()

    def _may_admit(self, turn: Turn) -> bool:
        return self._due > 0 or not turn.is_awaited

    async def _round(self, turn: Turn) -> None:
        """Let rows leave and join, submit steps of a group, and wait for one submit."""
        self._backbone.check_usable()
        self._backbone.check_weights(self._weights_version)
        if self._device is not self._backbone.device:
            raise DeviceLostError("the device of this batch was replaced")
        ahead = can_submit_ahead()
        if ahead or not self._in_flight:  # rows that join or move are submits, too
            for group in self._groups:
                if group.drop_ended():
                    self._awaits_memory = False
            await self._admit(turn)
            await self._submit(2 if ahead else 1)
        if not ahead and self._in_flight and self._rows_stay(turn):
            await self._submit(2, later=True)
        if self._in_flight:
            await self._collect()
        else:
            await asyncio.sleep(0)  # lets others run between the chunks of a prompt

    async def _submit(self, most: int, later: bool = False) -> None:
        """Submit steps of the next groups, until ``most`` submits are in flight.

        ``later``: encode them, and submit each as soon as the one before it is done.
        """
        for group in tuple(self._groups):
            if len(self._in_flight) >= most:
                break
            if group.room(bool(self._waiting)):
                await group.submit(bool(self._waiting), later)
                self._in_flight.append(group)
                self._groups.remove(group)  # to the end: the others are next
                self._groups.append(group)

    def _rows_stay(self, turn: Turn) -> bool:
        """Return whether no row joins before the next submit, and none is known to leave."""
        if self._joining is not None or any(row.room <= 0 for row in self._placed()):
            return False
        has_place = len(self._placed()) < self._max_rows and not self._awaits_memory
        return not (self._waiting and has_place and self._may_admit(turn))

    async def _collect(self) -> None:
        def begin_next() -> None:
            if len(self._in_flight) > 1:
                self._in_flight[1].begin()

        new, steps = await self._in_flight[0].collect(begin_next)
        self._in_flight.popleft()
        self._tokens += new
        self._steps += steps

    async def _admit(self, turn: Turn) -> None:
        """Compute a chunk of the next row's prompt, or let the row join."""
        while self._waiting and self._waiting[0].finish_reason:
            self._waiting.popleft()
            self._due = max(0, self._due - 1)
        if self._joining is None:
            if not self._waiting or len(self._placed()) >= self._max_rows or self._awaits_memory:
                return
            if not self._may_admit(turn):
                return
            if self._prefill is None:
                try:
                    self._prefill = await RowPrefill.start(self._lm, self._length)
                except OutOfGPUMemoryError as error:
                    self._without_memory(self._waiting.popleft(), error)
                    return
            self._joining = self._waiting.popleft()
            self._due = max(0, self._due - 1)
            self._chunks = self._prefill.chunks(self._joining.history, self._joining.plan.limit)
        assert self._chunks is not None
        row = self._joining
        try:
            if row.finish_reason is None:
                async for _ in self._chunks:
                    return  # the rest in later rounds
                await self._join(row)
        except OutOfGPUMemoryError as error:
            self._without_memory(row, error)
        await self._chunks.aclose()
        self._joining = self._chunks = None

    async def _join(self, row: RowState) -> None:
        """Give ``row``, whose prompt is computed, a place; OutOfGPUMemoryError without memory."""
        group = self._group_of(row)
        assert self._prefill is not None
        if group.is_full:
            while group.in_flight:
                await self._collect()
            await group.grow()
        group.join(row, self._prefill.cache)

    def _without_memory(self, row: RowState, error: OutOfGPUMemoryError) -> None:
        """Return ``row`` to the queue until another row leaves; with none, end it."""
        if any(each.rows for each in self._groups):
            self._awaits_memory = True
            self._waiting.appendleft(row)
        else:
            row.end("error", error)

    def _group_of(self, row: RowState) -> RowGroup:
        """Return the group of ``row``; a new one replaces those without rows."""
        key = row.plan.key
        for group in self._groups:
            if group.key == key:
                return group
        for group in [each for each in self._groups if not each.rows and not each.in_flight]:
            self._groups.remove(group)
            group.close()
        self._groups.append(RowGroup(self._lm, key, self._length, self._max_rows))
        return self._groups[-1]

    async def _recover(self) -> None:
        """Replace a lost device; rows with a place are the first in the queue."""
        placed = self._placed()
        await self._free()
        self._waiting.extendleft(reversed(placed))
        self._due += len(placed)
        await recover(self._backbone, self._device)
        self._device = self._backbone.device

    async def _free(self) -> None:
        """Free the GPU memory; rows lose their places."""
        chunks, self._chunks, self._joining = self._chunks, None, None
        prefill, self._prefill = self._prefill, None
        groups = list(self._groups)
        self._groups.clear()
        self._in_flight.clear()
        self._awaits_memory = False
        for group in groups:
            group.close()
        if chunks is not None:
            await chunks.aclose()
        if prefill is not None:
            prefill.close()

    async def close(self) -> None:
        """End all rows and free the GPU memory. Idempotent."""
        self._closed = True
        self._control.cancel()
        for row in self._rows():
            row.end(ABORTED)
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        await self._free()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
