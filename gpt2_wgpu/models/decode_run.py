"""What a decoding loop has on one device: KV cache, state, the step, submits in flight.

A step is recorded once and replayed for every token. Position, newest token, finished flag and
random numbers live on the GPU and are advanced there, so that a token costs Python nothing but
its share of a submit and of one small read-back. The GPU gets the next submit before the last is
done, so that it need not wait for Python. A step that reads values cannot be recorded: it runs
eagerly, one token a submit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError, ShapeError
from gpt2_wgpu.models.decode_step import CachedModel, DecodeStep, check_cache
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.prefill import replay_texts
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, KVCache, SamplingOptions, SamplingState
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.text.token_arrays import as_array
from gpt2_wgpu.webgpu import Readback, Recording

SUBMITS = 2  # in flight at once: the next is handed over before the last is done


@dataclass(frozen=True)
class Result:
    """The state of the rows after a submit."""

    steps: int
    seconds: float  # since the submit, or since the one before was done
    position: memoryview  # [B]
    finished: memoryview  # [B]
    recent: memoryview  # [B * RECENT]


class DecodeRun(NotCopyable):
    """KV cache, state, step and submits in flight of a decoding loop, on one device."""

    def __init__(
        self,
        cache: KVCache,
        state: SamplingState,
        step: DecodeStep,
        recording: Recording | None,
        readbacks: Sequence[Readback],
    ) -> None:
        self.device = cache.device
        self._step = step
        self._recording = recording
        self._readbacks = readbacks
        self._idle = deque(readbacks)
        self._submits: deque[tuple[int, float, Readback]] = deque()  # steps, begun at
        self._done_at = -math.inf
        self._owned = keep([cache, state])

    @classmethod
    async def start(
        cls,
        model: CachedModel,
        rows: Sequence[History],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        candidates: Candidates,
        seeds: Sequence[int] | None,
        length: int,
        choice: TokenChoice,
        token_ids: Callable[[], list[list[int]]],
    ) -> DecodeRun:
        """Compute all tokens of ``rows`` but the last of each, and record the step.

        ``length``: positions of the cache. Where texts go on it is what it was at first, and tokens
        are computed as they were then: the bits are the same.
        """
        device = model.backbone.device
        with ExitStack() as undo, tidy("generation"):  # a raise leaves nothing behind
            cache = await filled_cache(model, rows, length)
            await replay_texts(model, rows, cache)
            state = SamplingState.create(
                device,
                rows,
                limits,
                options,
                stop_token_ids,
                candidates.end,
                seeds,
                candidates.excluded,
            )
            step = DecodeStep(model, cache, state, choice, token_ids)
            recording = await step.recorded()
            if recording is not None:
                undo.callback(recording.close)
            reported = (state.position, state.finished, state.recent)
            ranges = [(tensor.storage, 0, tensor.nbytes) for tensor in reported]
            readbacks = []
            for _ in range(SUBMITS):
                readbacks.append(Readback(device, ranges))
                undo.callback(readbacks[-1].close)
            run = cls(cache, state, step, recording, readbacks)
            undo.pop_all()
            return run

    @property
    def is_recorded(self) -> bool:
        """Whether a submit replays a recording; else steps run eagerly."""
        return self._recording is not None

    @property
    def in_flight(self) -> int:
        """Steps that are submitted and not yet collected."""
        return sum(steps for steps, _, _ in self._submits)

    async def submit(self, steps: int) -> None:
        """Have the GPU run ``steps`` more; :meth:`result` gives what came of it."""
        begun = time.perf_counter()
        if self._recording is not None:
            self._recording.replay(steps)
        else:
            for _ in range(steps):
                await self._step.run()
        self._idle[0].begin()
        self._submits.append((steps, begun, self._idle.popleft()))

    async def result(self) -> Result:
        """Wait for the oldest submit in flight."""
        steps, begun, readback = self._submits[0]
        position, finished, recent = await readback.finish()
        self._submits.popleft()
        self._idle.append(readback)
        now = time.perf_counter()
        seconds, self._done_at = now - max(begun, self._done_at), now
        return Result(steps, seconds, position.cast("I"), finished.cast("I"), recent.cast("I"))

    def close(self) -> None:
        """Free everything."""
        with ExitStack() as freed:  # last first; each is, whatever another one raises
            freed.callback(dispose, self._owned)
            for readback in self._readbacks:
                freed.callback(readback.close)
            if self._recording is not None:
                freed.callback(self._recording.close)


async def filled_cache(model: CachedModel, rows: Sequence[History], length: int) -> KVCache:
    """A cache of ``length`` positions with all prompt tokens of ``rows`` but the last of each.

    The last is left to the first step, which needs its logits anyway. Rows that are shorter than
    the longest are padded with tokens whose keys are not seen: a row writes a position before it
    reads it. A replaced ``build_cache`` gets rows of ``length``, as KerasHub's does.
    """
    prompts = [row.ids[: row.prompt] for row in rows]
    build = chosen(model, "build_cache")
    if is_default(build):
        cache = await settled_cache(model.backbone, len(rows), length)
        longest = max(map(len, prompts)) - 1
        if longest:
            given = [[*prompt[:-1], *[0] * (longest + 1 - len(prompt))] for prompt in prompts]
            await model.build_cache_async(given, cache=cache)
        return cache
    given = [[*prompt, *[0] * (length - len(prompt))] for prompt in prompts]
    hidden, built = await settled(build(as_array(given, "int32")))
    dispose(hidden)
    cache = check_cache(built, model.backbone.config)
    if cache.batch_size != len(rows) or cache.length < length:
        raise ShapeError(
            f"build_cache returned a cache of shape {cache.shape} for {len(rows)} rows of "
            f"{length} positions"
        )
    return cache


async def settled_cache(backbone: GPT2Backbone, rows: int, length: int) -> KVCache:
    """Allocate the KV cache and confirm it; after an error that came late, try once more.

    Browsers report lack of memory asynchronously. The pool is emptied then, so that a second try
    may do; elsewhere that has happened by the time an allocation raises.
    """
    cache = backbone.new_cache(rows, length)
    nbytes = sum(layer.nbytes for layer in cache.children)
    try:
        await backbone.device.check_errors("the keys and values", nbytes)
    except OutOfGPUMemoryError:
        cache.dispose()
        cache = backbone.new_cache(rows, length)
        await backbone.device.check_errors("the keys and values", nbytes)
    return cache
