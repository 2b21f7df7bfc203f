"""Measurement for each dtype and batch size: check, warm-up, timing, profile."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from gpt2_wgpu.bench import machine, reference, traffic
from gpt2_wgpu.bench.inspection import LENS_TOKENS, measure_inspection
from gpt2_wgpu.bench.measured_models import Model, Preset, RandomModel
from gpt2_wgpu.bench.runs import Rows, Run, prompts_of, timed
from gpt2_wgpu.diagnostics import Profile, peak_read_bandwidth_async, profile_async
from gpt2_wgpu.diagnostics.profiling import Row as ProfileRow
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.nn import check_cache_dtype
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, checked_device, default_device_async, sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS, check_weight_format

FORMAT = 1  # version of the report's format; docs/benchmarks.md
ADAPTER = ("name", "vendor", "backend", "driver", "adapter_type")  # keys of the report
PROFILED_STEPS = 8
POSITION_STEPS = 32  # new tokens per position, enough for submits of full size

Report = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Measurement plan. Raises ``InvalidArgumentError`` for a value out of range."""

    model: Model
    prompt_tokens: int = 128
    new_tokens: int = 128
    batches: Sequence[int] = (1,)
    dtypes: Sequence[str | None] = ("float16",)  # None: the model's default dtype
    repeats: int = 5
    positions: bool = False  # also measure the time per token at several positions
    inspection: bool = False  # also measure odds, attention, logit lens and details
    cache_dtype: str | None = None  # storage of keys and values; None: the device's default

    def __post_init__(self) -> None:
        if not isinstance(self.model, Preset | RandomModel):
            raise InvalidArgumentError(
                f"model must be a bench.Preset or bench.RandomModel, not {shown(self.model)}"
            )
        for name in ("batches", "dtypes"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise InvalidArgumentError(f"{name} must be a sequence, not {shown(value)}")
        integer("prompt_tokens", self.prompt_tokens, 1, 2**31 - 1)
        integer("new_tokens", self.new_tokens, 2, 2**31 - 1)
        integer("repeats", self.repeats, 1, 2**31 - 1)
        for batch in self.batches:
            integer("a batch", batch, 1, 2**16 - 1)
        for dtype in self.dtypes:
            if dtype is not None:
                check_weight_format(dtype)
        if self.cache_dtype is not None:
            check_cache_dtype(self.cache_dtype)
        if self.inspection and self.prompt_tokens < LENS_TOKENS:
            raise InvalidArgumentError(
                f"inspection needs {LENS_TOKENS} prompt tokens or more, not {self.prompt_tokens}"
            )
        if not self.batches or not self.dtypes:
            raise InvalidArgumentError("a plan needs at least one batch size and one dtype")


def measure(plan: Plan, device: Device | None = None, say: Say | None = None) -> Report:
    """Blocking counterpart of :func:`measure_async`."""
    return sync(measure_async(plan, device, say), "measure_async(...)")


async def measure_async(plan: Plan, device: Device | None = None, say: Say | None = None) -> Report:
    """Run the measurements of ``plan``.

    Args:
        plan: what to measure.
        device: default: the default device.
        say: called with lines of progress.

    Returns:
        The report, JSON-serialisable; see docs/benchmarks.md.

    Raises:
        BenchmarkError: outputs differ from the reference.
        ContextLengthError: the tokens exceed the model's context.
        GPT2WGPUError: the model cannot be loaded.
    """
    _check_context(plan, (await plan.model.config()).n_positions)
    device = checked_device(device) or await default_device_async()
    say = say or _say_nothing
    use = machine.ProcessorUse()
    date = datetime.now(UTC)
    say(f"checking {device.info.name}")
    await reference.check_device(device, [dtype or "float16" for dtype in plan.dtypes])
    say("measuring the peak read bandwidth")
    before = await peak_read_bandwidth_async(device)
    rows, parameters = [], 0
    for dtype in plan.dtypes:
        say(f"loading {plan.model.name}" + (f" as {WEIGHT_FORMATS[dtype].name}" if dtype else ""))
        with await plan.model.load(dtype, device, plan.cache_dtype) as lm:
            if dtype is None:
                say(f"weights are {_format_of(lm)}, its default on this adapter")
            parameters = lm.backbone.config.parameter_count()
            rows += [await measure_row(plan, lm, batch, say) for batch in plan.batches]
    # The maximum, since other load can only slow down one of the two.
    limit = max(
        before, await peak_read_bandwidth_async(device), key=lambda found: found.bytes_per_second
    )
    for row in rows:
        row["bandwidth_utilisation"] = row["bytes_per_second"] / limit.bytes_per_second
    return {
        "format": FORMAT,
        "date": date.isoformat(timespec="seconds"),
        "hardware": device.info.name,
        "driver": device.info.driver,
        "software_adapter": device.info.is_software,
        "versions": machine.versions(),
        "load": {"loadavg": machine.load_average(), "foreign_cpu": _rounded(use.foreign_cores())},
        "work": {
            "model": plan.model.name,
            "parameters": parameters,
            "prompt_tokens": plan.prompt_tokens,
            "new_tokens": plan.new_tokens,
            "repeats": plan.repeats,
        },
        "adapter": {key: getattr(device.info, key) for key in ADAPTER},
        "peak_read_bandwidth": {
            "bytes_per_second": limit.bytes_per_second,
            "bytes_read": limit.nbytes,
            "kernels": [asdict(rate) for rate in limit.rates],
        },
        "rows": rows,
    }


def _format_of(lm: GPT2CausalLM) -> str:
    return WEIGHT_FORMATS[lm.backbone.dtype].name


async def measure_row(plan: Plan, lm: GPT2CausalLM, batch: int, say: Say) -> Report:
    """Measure a loaded model with one batch size; without its share of the peak bandwidth."""
    dtype = _format_of(lm)
    prompts = prompts_of(lm.backbone.config.vocab_size, batch, plan.prompt_tokens)
    say(f"{dtype}, batch {batch}: comparing tokens with the uncached forward pass")
    expected = (await timed(lm, prompts, plan.new_tokens)).tokens
    checked = await reference.check_tokens(lm, prompts, expected)
    runs = []
    for number in range(1, plan.repeats + 1):
        say(f"{dtype}, batch {batch}: run {number} of {plan.repeats}")
        runs.append(await timed(lm, prompts, plan.new_tokens))
        reference.check_same(expected, runs[-1].tokens, f"run {number}")
    say(f"{dtype}, batch {batch}: times of the kernels")
    alone = await timed(lm, prompts, 1)
    prefill, decode = await _profiled(lm, prompts, expected, alone)
    positions = await steps_by_position(lm, batch, plan.repeats, say) if plan.positions else []
    inspection = None
    if plan.inspection and batch == plan.batches[0]:
        say(f"{dtype}: odds, attention, logit lens and details of one text")
        (ids,) = prompts_of(lm.backbone.config.vocab_size, 1, plan.prompt_tokens)
        inspection = await measure_inspection(lm, ids, plan.new_tokens, plan.repeats)
    return {
        "engine": "gpt2-wgpu",
        "backend": lm.device.info.backend,
        "dtype": dtype,
        "cache_dtype": WEIGHT_FORMATS[lm.backbone.cache_dtype].name,
        "batch": batch,
        "prefill_seconds": [run.first_seconds for run in runs],
        "decode_tokens_per_second": [run.tokens_per_second for run in runs],
        "equal_outputs": True,  # else BenchmarkError was raised
        "note": _doubt(checked),
        "checked": asdict(checked),
        **_derived(plan, lm, runs, alone),
        "kernels": {"prefill": prefill, "decode": decode},
        "positions": positions,
        "inspection": inspection,
    }


def _derived(plan: Plan, lm: GPT2CausalLM, runs: Sequence[Run], alone: Run) -> Report:
    """Return the figures derived from the runs; a step makes one token per row.

    ``alone``: a run of one new token, whose counts are subtracted to get those of decode steps.
    """
    batch, steps = len(runs[0].tokens), runs[0].decode_steps
    step = statistics.median(run.decode_seconds / run.decode_steps for run in runs)
    prefill = statistics.median(run.first_seconds for run in runs)
    middle = plan.prompt_tokens + plan.new_tokens - 1 - steps / 2
    more = plan.new_tokens - 1
    weights, cache = traffic.weight_bytes(lm), batch * traffic.cache_bytes(lm, middle)
    return {
        "prefill_tokens_per_second": batch * plan.prompt_tokens / prefill,
        "time_to_first_token_seconds": prefill,
        "seconds_per_step": step,
        "host_seconds_per_step": statistics.median(
            run.host_seconds / run.decode_steps for run in runs
        ),
        "host_cpu_seconds_per_step": statistics.median(
            run.host_cpu_seconds / run.decode_steps for run in runs
        ),
        "dispatches_per_step": (runs[0].dispatches - alone.dispatches) / more,
        "submits_per_step": statistics.median((run.submits - alone.submits) / more for run in runs),
        "weight_bytes_per_step": weights,
        "cache_bytes_per_step": round(cache),
        "bytes_per_second": (weights + cache) / step,
    }


async def _profiled(
    lm: GPT2CausalLM, prompts: Rows, expected: Rows, alone: Run
) -> tuple[Report, Report]:
    """Return GPU times by kernel of the prefill with the first token (``alone``), and of a step."""
    new_tokens = min(len(expected[0]), PROFILED_STEPS + 1)
    profile = await profile_async(lambda: timed(lm, prompts, new_tokens), lm.device)
    begun = [row[:new_tokens] for row in expected]
    reference.check_same(begun, profile.result.tokens, "the profiled run")
    prefill, decode = profile.rows[: alone.dispatches], profile.rows[alone.dispatches :]
    return _by_kernel(prefill, 1), _by_kernel(decode, new_tokens - 1)


def _by_kernel(rows: list[ProfileRow], steps: int) -> Report:
    """Return dispatches and seconds per step of each kernel; seconds need timestamp queries."""
    return {
        kernel: {
            "dispatches": count / steps,
            "seconds": None if seconds is None else seconds / steps,
        }
        for kernel, (count, seconds) in Profile(rows=rows).by_kernel().items()
    }


async def steps_by_position(lm: GPT2CausalLM, batch: int, repeats: int, say: Say) -> list[Report]:
    """Return the time per step at a context that is empty, and a quarter, half and all full."""
    config = lm.backbone.config
    last = config.n_positions - POSITION_STEPS
    found = []
    for position in sorted({min(10, last), config.n_positions // 4, config.n_positions // 2, last}):
        say(f"{_format_of(lm)}, batch {batch}: tokens from position {position} on")
        prompts = prompts_of(config.vocab_size, batch, position)
        expected = (await timed(lm, prompts, POSITION_STEPS)).tokens
        await reference.check_tokens(lm, prompts, expected)
        runs = [await timed(lm, prompts, POSITION_STEPS) for _ in range(repeats)]
        for run in runs:
            reference.check_same(expected, run.tokens, f"a run from position {position}")
        seconds = [run.decode_seconds / run.decode_steps for run in runs]
        middle = position + POSITION_STEPS - 1 - runs[0].decode_steps // 2
        found.append({"position": middle, "seconds_per_step": statistics.median(seconds)})
    return found


def _check_context(plan: Plan, context: int) -> None:
    if plan.prompt_tokens + plan.new_tokens > context:
        raise ContextLengthError(
            f"{plan.prompt_tokens} prompt tokens and {plan.new_tokens} new ones exceed the "
            f"model's context of {context}: measure with fewer"
        )
    if plan.positions and context < 2 * POSITION_STEPS:
        raise ContextLengthError(
            f"a context of {context} is too short for times by position: {2 * POSITION_STEPS} or "
            "more are needed"
        )


def _doubt(checked: reference.Checked) -> str:
    """Return a caveat of the comparison: a wrong cache may repeat one token, too."""
    if 4 * checked.distinct >= checked.tokens:
        return ""
    return f"only {checked.distinct} of {checked.tokens} tokens differ, so equality proves little"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _say_nothing(_: str) -> None:
    """Ignore progress."""
