"""Part 7: products x Wᵀ with other kernels and constants than the library chooses, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.loop_bounds import without_loop_bounds
from benchmarks.gpu.parts import Context, Section, attempted
from gpt2_wgpu import nn
from gpt2_wgpu.nn import linear_choice
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.webgpu import Recording, sync

LANES = (8, 12, 16, 24, 32, 48, 64, 96, 128)
MOST_TOKENS = 8  # of a workgroup of the GEMV
TIMED_SECONDS = 0.004  # of one run: long beside a submit
ROUNDS = 7
BETTER = 0.95  # of the time of the library's choice: worth a look

Choice = Callable[[int, int], tuple[str, tuple[int, int, int], dict[str, int]]]


def measure(context: Context, section: Section) -> None:
    """Measure f16 products by shape and number of rows."""
    for out_features, in_features in context.plan.switch_shapes:
        for rows in context.plan.switch_rows:
            context.check_time()
            name = f"{rows} x {in_features} by {out_features}"

            def compared(sizes: Any = (rows, out_features, in_features)) -> dict[str, Any]:
                return _compared(context, *sizes)

            attempted(section, name, compared)


def settings(rows: int) -> dict[str, Choice | None]:
    """Return the choices to compare by name; None: the library's.

    The GEMV of one row keeps its loop here; the library unrolls it where that is possible.
    """
    found: dict[str, Choice | None] = {"chosen": None}
    for lanes in LANES:
        found[f"GEMV, {lanes} lanes"] = partial(linear_choice.gemv, lanes=lanes)
    if rows > MOST_TOKENS:
        for tile in linear_choice.TILE_ROWS:
            found[f"GEMM, {tile} rows"] = partial(linear_choice.gemm, rows=tile)
    return found


def _contexts(device: gw.Device, rows: int) -> dict[str, AbstractContextManager[None]]:
    """Return what to record a product in, by the name of the setting."""
    found: dict[str, AbstractContextManager[None]] = {
        name: nn.choose_kernels("linear", choice) if choice else nullcontext()
        for name, choice in settings(rows).items()
    }
    if (unbounded := without_loop_bounds(device)) is not None:
        found["chosen, no loop bounds"] = unbounded
    return found


def _compared(context: Context, rows: int, out_features: int, in_features: int) -> dict[str, Any]:
    """Return the seconds of a product with each setting, the best of several rounds in turns."""
    device = context.device

    async def values(begin: int, end: int) -> Tensor:
        return nn.random_normal(device, end - begin, 0.1, 0, 0, begin)

    raw = nn.Raw(values, "F32", (out_features, in_features))
    best: dict[str, float] = {}
    with ExitStack() as freed, tidy("switches"):
        matrix = sync(nn.load_matrix(device, raw, "float16"), "load_matrix")
        for _, part in matrix.parts:
            freed.callback(part.dispose)
        x = nn.random_normal(device, rows * in_features, 1.0, 0, 1).view((rows, in_features))
        recordings = {}
        for name, setting in _contexts(device, rows).items():
            with setting, Recording(device) as recording:
                result = nn.linear(x, matrix)
            freed.callback(recording.close)
            recordings[name] = recording, result
        times = {name: _times(context, *both) for name, both in recordings.items()}
        for _ in range(ROUNDS):
            for name, (recording, result) in recordings.items():
                seconds = _seconds(context, recording, result, times[name])
                best[name] = min(seconds, best.get(name, seconds))
    fastest = min(best, key=best.__getitem__)
    worth = best[fastest] < BETTER * best["chosen"]
    return {"seconds": best, "better": fastest if worth else None}


def _times(context: Context, recording: Recording, result: Tensor) -> int:
    """Return the number of replays that last long enough to be timed."""
    _seconds(context, recording, result, 1)  # compiles
    return max(1, min(256, int(TIMED_SECONDS / _seconds(context, recording, result, 1))))


def _seconds(context: Context, recording: Recording, result: Tensor, times: int) -> float:
    begun = time.perf_counter()
    recording.replay(times)
    sync(context.device.queue.read([(result.storage, 0, 4)]), "read")
    return (time.perf_counter() - begun) / times


def hints(section: Section) -> Iterator[str]:
    """Yield the shapes for which another setting was faster than the library's choice."""
    for name, found in section.items():
        if isinstance(found, dict) and found.get("better"):
            seconds = found["seconds"]
            gain = seconds["chosen"] / seconds[found["better"]]
            yield f"{name}: {found['better']} is {gain:.2f} x as fast as the library's choice"
