"""DecodeRun: KV cache, state, step and submits in flight of a decoding loop on one device.

A step is recorded once and replayed for every token. Position, newest token, finished flag and
random state are on the GPU and advanced there, so that the host cost of a token is its share of a
submit and of one small readback. The next submit is queued before the last one has finished, so
that the GPU does not wait for Python. A step that reads values cannot be recorded; it runs eagerly,
one token per submit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError, ShapeError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_step import DecodeStep, check_cache, checked_pair, dispose_unkept
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.kept_runs import (
    DecodeInputs,
    KeptRuns,
    RunKey,
    RunParts,
)
from gpt2_wgpu.models.live_rows import COMPACTED_EVERY, LiveRows, has_own_steps
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.prefill import Prefill, cache_bytes
from gpt2_wgpu.models.replay import replay_texts
from gpt2_wgpu.models.step_check import CHECKED_EVERY, check_step
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import Tensor, dispose, keep, tidy
from gpt2_wgpu.text.token_arrays import as_array
from gpt2_wgpu.webgpu import Readback, Recording

SUBMITS = 2  # in flight at once: the next is handed over before the last is done


@dataclass(frozen=True)
class Result:
    """The state of the rows after a submit."""

    steps: int
    seconds: float  # since the submit, or since the one before was done
    rows: Sequence[int]  # row of the batch at each place of the following
    position: memoryview  # [B]
    finished: memoryview  # [B]
    recent: memoryview  # [B * RECENT]
    odds: memoryview | None = None  # bytes of SamplingState.odds


@dataclass(frozen=True)
class _Submit:
    """Steps in flight."""

    steps: int
    begun: float
    rows: Sequence[int]
    readback: Readback


class DecodeRun(NotCopyable):
    """KV cache, state, step and submits in flight of a decoding loop, on one device."""

    def __init__(
        self,
        prefill: Prefill,
        live: LiveRows,
        new_step: Callable[..., DecodeStep],
        step: DecodeStep,
        recording: Recording | None,
        readbacks: Sequence[Readback],
    ) -> None:
        self.device = prefill.cache.device
        self.steps = 0  # since the prompt, with those in flight
        self._prefill = prefill
        self._live = live
        self._new_step = new_step  # (cache, state, borrowed) -> step
        self._step = step
        self._recording = recording
        self._readbacks = readbacks
        self._idle = deque(readbacks)
        self._submits: deque[_Submit] = deque()
        self._later: Readback | None = None  # of the last of them, while it is only encoded
        self._done_at = -math.inf
        # A cache that the caller of a replaced build_cache keeps stays the caller's.
        self._owned = keep([live.state] if prefill.cache.kept else [prefill.cache, live.state])
        self._checked = 0  # steps that could be compared
        self._kept: tuple[RunKey, RunParts] | None = None  # where it can serve again

    @classmethod
    async def start(
        cls,
        model: CachedModel,
        inputs: DecodeInputs,
        choice: TokenChoice,
        token_ids: Callable[[], list[list[int]]],
    ) -> DecodeRun:
        """Compute all tokens of the rows except the last of each, and record the step.

        In a recovery tokens are computed as originally, so that the bits are the same.
        """
        device = model.backbone.device
        can_be_kept = choice == TokenChoice() and has_own_steps(model)
        if can_be_kept:  # lengths that take the same memory share a recording
            most = model.backbone.config.n_positions
            inputs = replace(inputs, length=min(nn.round_up(inputs.length, 16), most))
        key = RunKey.of(model.backbone, inputs)
        with ExitStack() as undo, tidy("generation"):  # an exception frees everything
            parts = model.kept_runs.take(key) if can_be_kept else None
            if parts is not None:
                undo.callback(parts.close)
            prefill = await filled_cache(model, inputs, None if parts is None else parts.prefill)
            undo.callback(prefill.close)
            if parts is not None:
                state = parts.state
                inputs.write(state)
            else:
                state = inputs.new_state(device)

            def new_step(*where: Any) -> DecodeStep:
                cache, state, *borrowed = where
                return DecodeStep(model, cache, state, choice, token_ids, *borrowed)

            step = new_step(prefill.cache, state)
            recording = await step.recorded() if parts is None else parts.step
            if recording is not None:
                undo.callback(recording.close)
            reported = [state.position, state.finished, state.recent]
            reported += [] if state.odds is None else [state.odds]
            ranges = [(tensor.storage, 0, tensor.nbytes) for tensor in reported]
            readbacks = []
            for _ in range(SUBMITS):
                readbacks.append(Readback(device, ranges))
                undo.callback(readbacks[-1].close)
            live = LiveRows(prefill.cache, state)
            undo.callback(live.close)
            run = cls(prefill, live, new_step, step, recording, readbacks)
            if can_be_kept and recording is not None:
                run._kept = key, parts or RunParts(state, recording, prefill)
                undo.callback(run._kept[1].close)
            ended = inputs.ended if run.compacts else None
            run.steps = await replay_texts(model, inputs.rows, live, ended)
            await run._record(len(live.rows))
            run._take_step()
            undo.pop_all()
            return run

    @property
    def cache(self) -> KVCache:
        """The KV cache of all rows."""
        return self._prefill.cache

    @property
    def is_recorded(self) -> bool:
        """Return whether a submit replays a recording; else steps run eagerly."""
        return self._recording is not None

    @property
    def in_flight(self) -> int:
        """Number of steps submitted and not yet collected."""
        return sum(submit.steps for submit in self._submits)

    @property
    def compacts(self) -> bool:
        """Return whether finished rows leave the step; in steps with user code they stay."""
        return self._kept is not None and self._prefill.cache.batch_size > 1

    @property
    def steps_at_once(self) -> int:
        """Largest number of steps that the next submit may have."""
        return COMPACTED_EVERY - self.steps % COMPACTED_EVERY if self.compacts else nn.RECENT

    def compacts_next(self, ended: Sequence[int | None]) -> bool:
        """Return whether :meth:`compact` would drop rows."""
        rows = self._live.rows
        return self.compacts and len(self._live.staying(self.steps, ended)) < len(rows)

    async def compact(self, ended: Sequence[int | None]) -> None:
        """Drop finished rows before the next step, if it is time; see :class:`LiveRows`.

        All rows stay as long as there is no memory for a recording of fewer.
        """
        if self.compacts_next(ended):
            staying = self._live.staying(self.steps, ended)
            with suppress(OutOfGPUMemoryError):
                await self._record(len(staying))  # before rows are moved
                if self._live.compact(self.steps, ended):
                    self._take_step()

    async def _record(self, rows: int) -> None:
        """Record the step of the first ``rows`` places, once; it is kept."""
        if self._kept is None or rows == self._prefill.cache.batch_size:
            return
        parts = self._kept[1]
        if rows not in parts.steps:
            with tidy("step"):
                cache, state = self._prefill.cache.first_rows(rows), parts.state.first_rows(rows)
                recording = await self._new_step(cache, state, parts.step.workspace).recorded()
            assert recording is not None
            parts.steps[rows] = recording

    def _take_step(self) -> None:
        """Take the step of as many rows as are live, which is recorded."""
        live, rows = self._live, len(self._live.rows)
        if self._kept is not None and rows < self._prefill.cache.batch_size:
            parts = self._kept[1]
            self._step = self._new_step(live.cache, live.state, parts.step.workspace)
            self._recording = parts.steps[rows]

    async def submit(self, steps: int, check: bool = False, later: bool = False) -> None:
        """Submit ``steps`` more steps; :meth:`result` returns the state after them.

        ``check``: compare some of them with the same steps run eagerly. ``later``: encode the
        recorded steps, and submit them as soon as the submit in flight is done.
        """
        begun = time.perf_counter()
        if self._recording is not None and not check:
            self._recording.replay(steps)
        else:
            for _ in range(steps):
                await self._run_step()
        self.steps += steps
        readback = self._idle[0]
        if later:
            self.device.queue.encode_pending()
            self._later = readback
        else:
            readback.begin()
        self._submits.append(_Submit(steps, begun, self._live.rows, self._idle.popleft()))

    async def _run_step(self) -> None:
        """Run one step eagerly, or sometimes with a check."""
        if self._recording is None:
            await self._step.run()
        elif self._checked % CHECKED_EVERY == 0:
            await check_step(self._recording, self._step, self._live.state)
        else:
            self._recording.replay()
        self._checked += 1

    async def result(self) -> Result:
        """Wait for the oldest submit in flight; return the state after it."""
        submit = self._submits[0]
        position, finished, recent, *odds = await submit.readback.finish()
        self._submits.popleft()
        later, self._later = self._later, None
        if later is not None:
            later.begin()
        self._idle.append(submit.readback)
        now = time.perf_counter()
        seconds, self._done_at = now - max(submit.begun, self._done_at), now
        return Result(
            submit.steps,
            seconds,
            submit.rows,
            position.cast("I"),
            finished.cast("I"),
            recent.cast("I"),
            *odds,
        )

    def close(self, kept_runs: KeptRuns | None = None) -> None:
        """Free everything, or return reusable parts to ``kept_runs``."""
        with ExitStack() as freed:  # in reverse order; each, even if another one raises
            if self._kept is None:
                freed.callback(dispose, self._owned)
                if self._recording is not None:
                    freed.callback(self._recording.close)
                freed.callback(self._prefill.close)
            elif kept_runs is None:
                freed.callback(self._kept[1].close)
            else:
                freed.callback(kept_runs.put, *self._kept)
            freed.callback(self._live.close)
            for readback in self._readbacks:
                freed.callback(readback.close)


async def filled_cache(
    model: CachedModel,
    inputs: DecodeInputs,
    prefill: Prefill | None,
    hidden_states: list[Tensor] | None = None,
) -> Prefill:
    """Return a cache with the prompts of the rows, except the last tokens, or that of ``prefill``.

    The first step computes the last token, whose logits it needs. Shorter rows are padded with
    tokens whose keys are never read: a row writes a position before it reads it. A replaced
    ``build_cache`` gets rows of ``length``, as in KerasHub. Hidden states are appended to
    ``hidden_states``.
    """
    prompts, length = [row.ids[: row.before] for row in inputs.rows], inputs.length
    backbone, build = model.backbone, chosen(model, "build_cache")
    if is_default(build):
        if prefill is None:
            prefill = Prefill(backbone, await settled_cache(backbone, len(prompts), length))
        longest = max(map(len, prompts)) - 1
        given = [[*prompt[:-1], *[0] * (longest + 1 - len(prompt))] for prompt in prompts]
        try:
            if inputs.prefix is not None:
                await inputs.prefix.fill(prefill)
            elif longest:
                await model.build_cache_async(given, prefill=prefill, hidden=hidden_states)
        except BaseException:
            prefill.close()
            raise
        return prefill
    given = [[*prompt, *[0] * (length - len(prompt))] for prompt in prompts]
    hidden, built = checked_pair(await settled(build(as_array(given, "int32"))))
    if hidden_states is None:
        dispose_unkept(hidden)
    else:
        hidden_states.append(hidden)
    cache = check_cache(built, backbone.config)
    if cache.batch_size != len(prompts) or cache.length < length:
        raise ShapeError(
            f"build_cache returned a cache of shape {cache.shape} for {len(prompts)} rows of "
            f"{length} positions"
        )
    return Prefill(backbone, cache)


async def settled_cache(backbone: GPT2Backbone, rows: int, length: int) -> KVCache:
    """Allocate the KV cache and confirm it; retry once after an asynchronous out-of-memory error.

    Browsers report errors asynchronously. The pool is then emptied, so that the second attempt may
    succeed; natively the pool is emptied before an allocation raises.
    """
    cache = backbone.new_cache(rows, length)
    nbytes = cache_bytes(cache)
    try:
        await backbone.device.check_errors("the keys and values", nbytes)
    except OutOfGPUMemoryError:
        cache.dispose()
        cache = backbone.new_cache(rows, length)
        await backbone.device.check_errors("the keys and values", nbytes)
    return cache
