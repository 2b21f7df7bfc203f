"""What a batch of generated rows has on one device: cache, state, the recorded step.

A step is recorded once and replayed for every token. Position, newest token, finished flag and
random numbers live on the GPU and are advanced there, so that a token costs Python nothing but
its share of a submit and of one small read-back. The GPU gets the next submit before the last is
done, so that it need not wait for Python.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.prefill import prefill, replay_texts
from gpt2_wgpu.nn import History, KVCache, SamplingOptions, SamplingState
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.webgpu import Readback, Recording

if TYPE_CHECKING:
    from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
    from gpt2_wgpu.models.token_ids import Candidates

SUBMITS = 2  # under way at once: the next is handed over before the last is done


@dataclass(frozen=True)
class Result:
    """Where the rows stand after a submit."""

    steps: int
    seconds: float  # since the submit, or since the one before was done
    position: memoryview  # [B]
    finished: memoryview  # [B]
    recent: memoryview  # [B * RECENT]


class Run(NotCopyable):
    """What a generation has on one device: cache, state, the recorded step, submits under way."""

    def __init__(
        self,
        cache: KVCache,
        state: SamplingState,
        recording: Recording,
        readbacks: Sequence[Readback],
    ) -> None:
        self.device = recording.device
        self._recording = recording
        self._readbacks = readbacks
        self._idle = deque(readbacks)
        self._submits: deque[tuple[int, float, Readback]] = deque()  # steps, begun at
        self._done_at = -math.inf
        self._owned = keep([cache, state])

    @classmethod
    async def start(
        cls,
        backbone: GPT2Backbone,
        rows: Sequence[History],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        candidates: Candidates,
        seeds: Sequence[int] | None,
        length: int,
    ) -> Run:
        """Compute all tokens of ``rows`` but the last of each, and record the step.

        ``length``: positions of the cache. Where texts go on it is what it was at first, and tokens
        are computed as they were then: the bits are the same.
        """
        with ExitStack() as undo, tidy("generation"):  # a raise leaves nothing behind
            cache = await settled_cache(backbone, len(rows), length)
            await prefill(backbone, [row.ids[: row.prompt] for row in rows], cache)
            await replay_texts(backbone, rows, cache)
            state = SamplingState.create(
                backbone.device,
                rows,
                limits,
                options,
                stop_token_ids,
                candidates.end,
                seeds,
                candidates.excluded,
            )
            recording = record_step(backbone, cache, state)
            undo.callback(recording.close)
            reported = (state.position, state.finished, state.recent)
            ranges = [(tensor.storage, 0, tensor.nbytes) for tensor in reported]
            readbacks = []
            for _ in range(SUBMITS):
                readbacks.append(Readback(backbone.device, ranges))
                undo.callback(readbacks[-1].close)
            run = cls(cache, state, recording, readbacks)
            undo.pop_all()
            return run

    @property
    def under_way(self) -> int:
        """Steps that are submitted and not yet collected."""
        return sum(steps for steps, _, _ in self._submits)

    def submit(self, steps: int) -> None:
        """Let the GPU run ``steps`` more; :meth:`result` tells what came of it."""
        begun = time.perf_counter()
        self._recording.replay(steps)
        self._idle[0].begin()
        self._submits.append((steps, begun, self._idle.popleft()))

    async def result(self) -> Result:
        """Wait for the oldest submit under way."""
        steps, begun, readback = self._submits[0]
        position, finished, recent = await readback.finish()
        self._submits.popleft()
        self._idle.append(readback)
        now = time.perf_counter()
        seconds, self._done_at = now - max(begun, self._done_at), now
        return Result(steps, seconds, position.cast("I"), finished.cast("I"), recent.cast("I"))

    def close(self) -> None:
        with ExitStack() as freed:  # last first; each is, whatever another one raises
            freed.callback(dispose, self._owned)
            for readback in self._readbacks:
                freed.callback(readback.close)
            freed.callback(self._recording.close)


async def settled_cache(backbone: GPT2Backbone, rows: int, length: int) -> KVCache:
    """A new cache that is sure to be there.

    Browsers tell late that memory lacks. The pool is emptied then, so that a second try may do;
    elsewhere that has happened by the time an allocation raises.
    """
    cache = backbone.new_cache(rows, length)
    nbytes = sum(layer.nbytes for layer in cache.children)
    try:
        await backbone.device.settled("the keys and values", nbytes)
    except OutOfGPUMemoryError:
        cache.dispose()
        cache = backbone.new_cache(rows, length)
        await backbone.device.settled("the keys and values", nbytes)
    return cache


def record_step(backbone: GPT2Backbone, cache: KVCache, state: SamplingState) -> Recording:
    """One step for all rows: newest token → logits → next token, advancing ``state``."""
    with Recording(backbone.device) as recording, tidy("step"):
        x = backbone.blocks(state.token, cache, state.position)  # (B, 1, D)
        nn.sample(backbone.head(x, state), state)
    return recording
