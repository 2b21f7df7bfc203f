"""Part 4: decoding by model, weight format and number of rows; kernels by shape; positions."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.models import opened
from benchmarks.gpu.parts import Context, Section, attempted
from gpt2_wgpu.bench import Plan as BenchPlan
from gpt2_wgpu.bench.measuring import measure_row, steps_by_position
from gpt2_wgpu.bench.runs import prompts_of, timed
from gpt2_wgpu.diagnostics import profile_async
from gpt2_wgpu.tensors.tensor import bytes_of
from gpt2_wgpu.webgpu import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

PROFILED = 9  # new tokens of a profiled run


def measure(context: Context, section: Section) -> None:
    """Measure tokens per second, then the time at several positions by cache format."""
    plan, rows = context.plan, section.setdefault("rows", [])
    peak = context.report["parts"].get("micro", {}).get("read_bytes_per_second")
    for model, dtype, batches in plan.decode:
        context.check_time()
        work = BenchPlan(
            model,
            plan.prompt_tokens,
            plan.new_tokens,
            batches,
            (dtype,),
            plan.repeats,
        )
        try:
            with opened(context, model, dtype) as lm:
                for batch in batches:
                    context.check_time()
                    row = sync(measure_row(work, lm, batch, context.tick), "measure_row")
                    row["model"] = model.name
                    if peak:
                        row["bandwidth_utilisation"] = row["bytes_per_second"] / peak
                    if batch == 1:
                        row["shapes"] = by_shape(lm, plan.prompt_tokens)
                    rows.append(row)
        except gw.errors.BenchmarkError:
            raise
        except gw.errors.GPT2WGPUError as error:  # a size that does not fit into this GPU
            rows.append({"model": model.name, "dtype": dtype, "error": str(error)})
    for cache in plan.cache_dtypes:
        context.check_time()
        found = section.setdefault("positions", {})
        attempted(found, cache, partial(_positions, context, cache))


def _positions(context: Context, cache_dtype: str) -> Any:
    with opened(context, context.plan.small, "float16", cache_dtype) as lm:
        return sync(
            steps_by_position(lm, 1, context.plan.repeats, context.tick), "steps_by_position"
        )


def by_shape(lm: gw.GPT2CausalLM, prompt_tokens: int) -> list[dict[str, Any]]:
    """Return the kernels of a decode step by shape: dispatches, GPU time and bandwidth.

    The bytes are those of weights, or of the cache up to the position for attention. A pass for
    each dispatch, so the sum of the times exceeds a step.
    """
    prompts = prompts_of(lm.backbone.config.vocab_size, 1, prompt_tokens)
    alone = sync(timed(lm, prompts, 1), "timed").dispatches
    profile = sync(profile_async(lambda: timed(lm, prompts, PROFILED), lm.device), "profile")
    groups: dict[tuple[str, tuple[int, ...]], list[float | None]] = defaultdict(list)
    for row in profile.rows[alone:]:
        groups[row.kernel, row.shapes.get("weights", ())].append(row.seconds)
    steps, dtype = PROFILED - 1, lm.backbone.dtype
    found = []
    for (kernel, shape), times in groups.items():
        known = [seconds for seconds in times if seconds is not None]
        each = sum(known) / len(known) if len(known) == len(times) else None
        nbytes = bytes_of(shape[0] * shape[1], dtype) if len(shape) == 2 else None
        if kernel == "embed":
            nbytes = None  # reads one row
        found.append(
            {
                "kernel": kernel,
                "shape": list(shape),
                "dtype": WEIGHT_FORMATS[dtype].name,
                "dispatches_per_step": len(times) / steps,
                "seconds": each,
                "bytes_per_second": nbytes / each if nbytes and each else None,
            }
        )
    return sorted(found, key=lambda one: -(one["seconds"] or 0) * one["dispatches_per_step"])
