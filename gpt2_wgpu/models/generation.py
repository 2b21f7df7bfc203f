"""One batch being generated: its cache, its state on the GPU, its recorded step.

A step is recorded once and replayed for every token. Position, newest token, finished flag and
random numbers live on the GPU and are advanced there, so that a token costs Python nothing but
its share of a submit and of one small read-back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import NumericalError
from gpt2_wgpu.gpu import Readback, Recording, dispose, keep, layers, tidy
from gpt2_wgpu.gpu.layers import (
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    KVCache,
    SamplingOptions,
    SamplingState,
)

if TYPE_CHECKING:
    from gpt2_wgpu.models.backbone import GPT2Backbone

SUBMIT_SECONDS = 0.05  # what one submit may take: bounds the delay of a stream and of a stop


class Generation:
    """Rows of token ids, growing by sampled tokens until each is stopped or full.

    ``prompts``: at least one id each (checked by the caller); ``limits``: total length at which a
    row is full. Rows may differ in length: each has its own position. Call :meth:`advance` until
    :attr:`done`, and :meth:`close` at the end, whatever happened.
    """

    def __init__(
        self,
        backbone: GPT2Backbone,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
    ) -> None:
        self._positions = [len(prompt) - 1 for prompt in prompts]  # of each row's newest token
        self._limits = list(limits)
        self._finished = [
            FULL if len(prompt) >= limit else LIVE
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
        self._pace = Pace()
        with tidy("generation"):  # a raise leaves nothing behind
            cache = backbone.new_cache(len(prompts), max(limits))
            prefill(backbone, prompts, cache)
            state = SamplingState.create(
                backbone.device,
                [prompt[-1] for prompt in prompts],
                self._positions,
                self._limits,
                options,
                stop_token_ids,
            )
            reported = (state.position, state.finished, state.recent)
            self._recording = record_step(backbone, cache, state)
            try:
                ranges = [(tensor.storage, 0, tensor.nbytes) for tensor in reported]
                self._readback = Readback(backbone.device, ranges)
            except BaseException:
                self._recording.close()
                raise
            self._owned: list[KVCache | SamplingState] = keep([cache, state])

    @property
    def done(self) -> bool:
        """Whether every row is finished."""
        return LIVE not in self._finished

    def stopped(self, row: int) -> bool:
        """Whether ``row`` ended with a stop token (else it is live, or full)."""
        return self._finished[row] == STOPPED

    async def advance(self) -> list[list[int]]:
        """Run some steps in one submit; the new ids of each row (a stop token included).

        Raises ``NumericalError`` when the logits of a row are not finite.
        """
        if self.done:
            return [[] for _ in self._positions]
        steps = self._pace.steps(self._room())
        begun = time.perf_counter()
        self._recording.replay(steps)
        position, finished, recent = await self._readback.read()
        self._pace.took(time.perf_counter() - begun, steps)
        return self._collect(position.cast("I"), finished.cast("I"), recent.cast("I"))

    def close(self) -> None:
        """Free everything on the GPU. Idempotent."""
        if self._owned:
            self._recording.close()
            self._readback.close()
            dispose(self._owned)
            self._owned = []

    def _room(self) -> int:
        """Steps until the last live row is full."""
        return max(
            limit - 1 - position
            for limit, position, finished in zip(
                self._limits, self._positions, self._finished, strict=True
            )
            if finished == LIVE
        )

    def _collect(
        self, position: memoryview, finished: memoryview, recent: memoryview
    ) -> list[list[int]]:
        """The tokens between each row's last known position and its new one."""
        new = []
        for row, old in enumerate(self._positions):
            places = range(old + 1, position[row] + 1)
            new.append([recent[row * RECENT + place % RECENT] for place in places])
            self._positions[row] = position[row]
            self._finished[row] = finished[row]
            if finished[row] == NOT_FINITE:
                raise NumericalError(
                    f"the logits of row {row} at position {position[row]} are not finite: the "
                    "weights hold NaN or overflow (float16?), or the device computes wrongly"
                )
        return new


def prefill(backbone: GPT2Backbone, prompts: Sequence[Sequence[int]], cache: KVCache) -> None:
    """Write keys and values of all prompt tokens but the last of each row into ``cache``.

    The last is left to the first step, which needs its logits anyway. Rows that are shorter than
    the longest are filled up with a token whose keys nobody sees: a row writes a position before
    it looks at it. In chunks, so that no submit runs into a driver's watchdog.
    """
    length = max(len(prompt) for prompt in prompts) - 1
    rows = [[*prompt[:-1], *[0] * (length + 1 - len(prompt))] for prompt in prompts]
    chunk = max(1, backbone.device.capabilities.prefill_rows // len(rows))
    for first in range(0, length, chunk):
        with tidy("prefill"):
            ids = backbone.words([row[first : first + chunk] for row in rows])
            backbone.blocks(ids, cache, backbone.words([first] * len(rows)))
        backbone.device.queue.flush()


def record_step(backbone: GPT2Backbone, cache: KVCache, state: SamplingState) -> Recording:
    """One step for all rows: newest token → logits → next token, advancing ``state``."""
    with Recording(backbone.device) as recording, tidy("step"):
        hidden = backbone.forward(state.token, cache, state.position)  # (B, 1, D)
        logits = layers.linear(hidden, backbone.weights.lm_head)  # (B, 1, V)
        layers.sample(logits.view((logits.shape[0], logits.shape[2])), state)
    return recording


class Pace:
    """How many steps a submit holds: one at first, then as many as fit into its time.

    More steps a submit hide its fixed cost and the read-back's latency; fewer stop sooner.
    """

    def __init__(self) -> None:
        self._next = 1

    def steps(self, room: int) -> int:
        """Steps of the next submit, at most ``room``."""
        return min(self._next, room, RECENT)

    def took(self, seconds: float, steps: int) -> None:
        """Learn from a submit of ``steps`` that took ``seconds``."""
        fitting = int(SUBMIT_SECONDS * steps / max(seconds, 1e-9))
        self._next = max(1, min(2 * steps, fitting, RECENT))
