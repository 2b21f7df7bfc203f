"""Part 3: streaming read, the gap between dependent dispatches, submit and readback."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict

from benchmarks.gpu.parts import Context, Section
from gpt2_wgpu.diagnostics import peak_read_bandwidth
from gpt2_wgpu.tensors import keep, tensor, tidy
from gpt2_wgpu.tensors.ops.arrays import copy_block
from gpt2_wgpu.webgpu import Recording, sync

READBACKS = 50
REPEATS = 9


def measure(context: Context, section: Section) -> None:
    """Measure what no kernel of a model can be faster than."""
    device = context.device
    _dispatch_gap(context, section)
    seconds = [_readback(context) for _ in range(READBACKS)]
    section["submit_and_readback_seconds"] = statistics.median(seconds)
    context.check_time()
    peak = peak_read_bandwidth(device)
    section["read_bytes_per_second"] = peak.bytes_per_second
    section["read_kernels"] = [asdict(rate) for rate in peak.rates]


def _readback(context: Context) -> float:
    with tidy("readback"):
        there = tensor([0], "uint32", device=context.device)
        begun = time.perf_counter()
        sync(context.device.queue.read([(there.storage, 0, 4)]), "read")
        return time.perf_counter() - begun


def _dispatch_gap(context: Context, section: Section) -> None:
    """Time chains of copies of one element, each of which reads what the one before wrote."""
    device = context.device
    few, many = context.plan.gaps
    with tidy("gaps"):
        x, y = keep((tensor([1.0], device=device), tensor([0.0], device=device)))
        with Recording(device) as recording:
            copy_block(x, y, (1,), (1,), 0, (1,), 0)
            copy_block(y, x, (1,), (1,), 0, (1,), 0)
    try:
        best = {}
        for count in (few, many):
            runs = []
            for _ in range(REPEATS):
                begun = time.perf_counter()
                recording.replay(count // 2)
                sync(device.queue.read([(x.storage, 0, 4)]), "read")
                runs.append(time.perf_counter() - begun)
            best[count] = min(runs)
        section["gap_seconds"] = (best[many] - best[few]) / (many - few)
        section["chains"] = {str(count): seconds for count, seconds in best.items()}
    finally:
        recording.close()
        x.dispose()
        y.dispose()
