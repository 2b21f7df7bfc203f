"""Timed run: greedy continuation of a batch of prompts, from ids to ids."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import BenchmarkError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.webgpu import time_waiting
from gpt2_wgpu.webgpu.waiting import processor_time

Rows = list[list[int]]


@dataclass(frozen=True)
class Run:
    """Figures of one generation. Decode figures exclude the first token of each row."""

    tokens: Rows  # new ids per row
    first_seconds: float  # from the prompt's ids to the first new ids
    decode_seconds: float  # after the first new ids
    decode_steps: int  # new tokens per row after the first
    host_seconds: float  # decode_seconds without waiting for the GPU
    host_cpu_seconds: float  # CPU time of host_seconds
    dispatches: int  # total; the difference of two runs gives those per token
    submits: int

    @property
    def tokens_per_second(self) -> float:
        """Decode rate, all rows together."""
        return len(self.tokens) * self.decode_steps / self.decode_seconds


def prompts_of(vocabulary: int, batch: int, length: int) -> Rows:
    """Return reproducible prompts of ``length`` pseudo-random ids, different for each row."""
    source = random.Random(20190214)
    return [[source.randrange(vocabulary) for _ in range(length)] for _ in range(batch)]


def start(lm: GPT2CausalLM, prompts: Rows, new_tokens: int) -> Generation:
    """Return a greedy generation without stop tokens, as used by ``generate`` and ``stream``."""
    limits = [len(prompt) + new_tokens for prompt in prompts]
    return Generation(lm, prompts, limits, samplers.Greedy().next_options(), [])


async def timed(lm: GPT2CausalLM, prompts: Rows, new_tokens: int) -> Run:
    """Continue ``prompts`` by ``new_tokens`` each.

    Raises:
        BenchmarkError: all of several tokens arrived with the first submit.
    """
    queue = lm.device.queue
    queue.flush()  # exclude earlier work
    dispatches, submits = queue.dispatches, queue.submits
    begun = time.perf_counter()
    generation = start(lm, prompts, new_tokens)
    try:
        tokens = await generation.advance()
        first, busy = time.perf_counter(), processor_time()
        received = len(tokens[0])
        with time_waiting() as waited:
            while not generation.done:
                extend(tokens, await generation.advance())
        ended, busy = time.perf_counter(), processor_time() - busy
    finally:
        generation.close()
    if received == len(tokens[0]) > 1:
        raise BenchmarkError(
            f"all {received} tokens arrived with the first submit, so decoding cannot be timed: "
            "use more new tokens"
        )
    return Run(
        tokens,
        first_seconds=first - begun,
        decode_seconds=ended - first,
        decode_steps=len(tokens[0]) - received,
        host_seconds=ended - first - waited.seconds,
        host_cpu_seconds=busy - waited.processor_seconds,
        dispatches=queue.dispatches - dispatches,
        submits=queue.submits - submits,
    )


def extend(rows: Rows, new: Sequence[Sequence[int]]) -> None:
    """Append new ids to each row."""
    for row, ids in zip(rows, new, strict=True):
        row.extend(ids)
