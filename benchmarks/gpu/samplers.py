"""Part 6: the time of a step by sampler, and of its kernels for choosing a token."""

from __future__ import annotations

import statistics
import time
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.models import opened
from benchmarks.gpu.parts import Context, Section
from gpt2_wgpu.bench.runs import prompts_of
from gpt2_wgpu.diagnostics import profile_async
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.samplers import Sampler
from gpt2_wgpu.webgpu import sync

RUNS = 3
PROFILED = 9  # new tokens
SAMPLERS: dict[str, Sampler] = {
    "greedy": gw.samplers.Greedy(),
    "top-k 40": gw.samplers.TopK(k=40, seed=1),
    "top-p 0.9": gw.samplers.TopP(p=0.9, seed=1),
    "random": gw.samplers.Random(seed=1),
}
CHOOSING = ("sample", "exclude_tokens", "bias_sequences", "advance")  # kernels


def measure(context: Context, section: Section) -> None:
    """Measure each sampler on the small model in f16."""
    with opened(context, context.plan.small, "float16") as lm:
        for name, sampler in SAMPLERS.items():
            context.check_time()
            section[name] = _measured(lm, sampler, context)


async def _generated(lm: gw.GPT2CausalLM, sampler: Sampler, tokens: int) -> tuple[float, int]:
    """Return seconds and steps after the first submit of ``tokens`` new tokens."""
    prompts = prompts_of(lm.backbone.config.vocab_size, 1, 16)
    generation = Generation(lm, prompts, [16 + tokens], sampler.next_options(), [])
    try:
        first = len((await generation.advance())[0])
        begun = time.perf_counter()
        while not generation.done:
            await generation.advance()
        return time.perf_counter() - begun, tokens - first
    finally:
        generation.close()


def _measured(lm: gw.GPT2CausalLM, sampler: Sampler, context: Context) -> dict[str, Any]:
    tokens = context.plan.new_tokens
    sync(_generated(lm, sampler, tokens), "generate")
    runs = [sync(_generated(lm, sampler, tokens), "generate") for _ in range(RUNS)]
    profile = sync(profile_async(lambda: _generated(lm, sampler, PROFILED), lm.device), "profile")
    times: list[float | None] = [row.seconds for row in profile.rows if row.kernel in CHOOSING]
    known = [seconds for seconds in times if seconds is not None]
    return {
        "seconds_per_step": statistics.median(seconds / steps for seconds, steps in runs),
        "choosing_seconds_per_step": sum(known) / PROFILED if len(known) == len(times) else None,
    }
