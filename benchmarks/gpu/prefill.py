"""Part 5: time to the first token by prompt length; the GPU's and the host's share."""

from __future__ import annotations

import statistics
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.models import opened
from benchmarks.gpu.parts import Context, Section
from gpt2_wgpu.bench.runs import prompts_of, timed
from gpt2_wgpu.webgpu import sync, time_waiting

RUNS = 5


def measure(context: Context, section: Section) -> None:
    """Measure the small model at each length, the large one at the longest."""
    rows = section.setdefault("rows", [])
    plan = context.plan
    for model, lengths in ((plan.small, plan.prefill), (plan.large, plan.prefill[-1:])):
        context.check_time()
        with opened(context, model, "float16") as lm:
            for tokens in lengths:
                context.check_time()
                rows.append({"model": model.name, "dtype": "f16", **_timed(lm, tokens)})


def _timed(lm: gw.GPT2CausalLM, tokens: int) -> dict[str, Any]:
    config = lm.backbone.config
    prompts = prompts_of(config.vocab_size, 1, tokens)
    first = sync(timed(lm, prompts, 1), "timed").first_seconds  # compiles, records
    seconds, host = [], []
    for _ in range(RUNS):
        with time_waiting() as waited:
            seconds.append(sync(timed(lm, prompts, 1), "timed").first_seconds)
        host.append(seconds[-1] - waited.seconds)
    # The products of all blocks; attention and head are not counted.
    operations = 2 * tokens * config.n_layer * 12 * config.n_embd**2
    return {
        "tokens": tokens,
        "first_run_seconds": first,
        "seconds": statistics.median(seconds),
        "host_seconds": statistics.median(host),
        "operations_per_second": operations / statistics.median(seconds),
    }
