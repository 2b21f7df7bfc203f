"""One run: a batch of prompts continued greedily, timed from ids to ids."""

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
    """What one generation did. The decode figures begin where the first tokens have arrived."""

    tokens: Rows  # new ids of each row
    first_seconds: float  # from the prompt's ids to the first new ids
    decode_seconds: float  # after them
    decode_steps: int  # new tokens of each row after them
    host_seconds: float  # of decode_seconds: all but waiting for the GPU
    host_cpu_seconds: float  # the same without what other programs took from this thread
    dispatches: int  # from beginning to end: what one more token costs, two runs tell
    submits: int

    @property
    def tokens_per_second(self) -> float:
        """Decoding, all rows together."""
        return len(self.tokens) * self.decode_steps / self.decode_seconds


def prompts_of(vocabulary: int, batch: int, length: int) -> Rows:
    """Prompts of ``length`` pseudo-random ids, another one for each row, always the same."""
    source = random.Random(20190214)
    return [[source.randrange(vocabulary) for _ in range(length)] for _ in range(batch)]


def start(lm: GPT2CausalLM, prompts: Rows, new_tokens: int) -> Generation:
    """A greedy generation that no token stops: what ``generate`` and ``stream`` run."""
    limits = [len(prompt) + new_tokens for prompt in prompts]
    return Generation(lm, prompts, limits, samplers.Greedy().next_options(), [])


async def timed(lm: GPT2CausalLM, prompts: Rows, new_tokens: int) -> Run:
    """Continue ``prompts`` by ``new_tokens`` each.

    Raises ``BenchmarkError`` when the first submit brings them all, though they are several.
    """
    queue = lm.device.queue
    queue.flush()  # what came before is not ours
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
            f"all {received} tokens came with the first submit: nothing is left to time, so ask "
            "for more new tokens"
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
    for row, ids in zip(rows, new, strict=True):
        row.extend(ids)
