"""Profiling: allocated bytes, peak memory and one row per dispatch."""

from __future__ import annotations

import inspect
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.diagnostics.memory_reports import memory
from gpt2_wgpu.errors import BusyError, DeviceLostError, InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.defaults import checked_device, default_device
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.fork import check_not_forked
from gpt2_wgpu.webgpu.queue import Batch, Command
from gpt2_wgpu.webgpu.waiting import sync, wait

QUERIES = 1024  # timestamps per query set, two per dispatch


@dataclass(frozen=True)
class Row:
    """One dispatch; ``seconds``: its GPU time, None without timestamp queries.

    ``nbytes``: the size of each binding; a kernel may read and write less than that.
    """

    kernel: str
    shapes: dict[str, tuple[int, ...]]
    workgroups: tuple[int, int, int]
    seconds: float | None
    nbytes: dict[str, int] = field(default_factory=dict)


@dataclass
class Profile:
    """Result of :func:`profile`; ``result``: the function's return value.

    Bytes are logical, as in TensorFlow.js; ``..._in_gpu`` are allocated bytes.
    """

    result: Any = None
    new_tensors: int = 0
    new_bytes: int = 0
    new_bytes_in_gpu: int = 0
    peak_bytes: int = 0  # highest live bytes during the work
    peak_bytes_in_gpu: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    timeline: list[tuple[float, dict[str, int]]] = field(default_factory=list)  # see `profile`

    def __repr__(self) -> str:
        return (
            f"<profile: {self.seconds:.3g} s, {len(self.rows):,} dispatches, {self.new_tensors:+,} "
            f"tensors, {self.new_bytes:+,} bytes (in GPU {self.new_bytes_in_gpu:+,}), peak "
            f"{self.peak_bytes:,} (in GPU {self.peak_bytes_in_gpu:,})>"
        )

    def by_kernel(self) -> dict[str, tuple[int, float | None]]:
        """Return dispatches and GPU seconds of each kernel, longest first."""
        totals: dict[str, tuple[int, float | None]] = {}
        for row in self.rows:
            count, seconds = totals.get(row.kernel, (0, 0.0))
            both = None if row.seconds is None or seconds is None else seconds + row.seconds
            totals[row.kernel] = (count + 1, both)
        return dict(sorted(totals.items(), key=lambda item: -(item[1][1] or 0)))


async def profile_async(function: Callable[[], Any], device: Device | None = None) -> Profile:
    """Profile ``function()``, which is awaited if it is a coroutine function.

    Each kernel runs in a separate pass, so that the total time is longer than usual. After a
    device loss the rows end there and have no times.

    Args:
        function: function without required arguments; its exceptions propagate.
        device: default: the default device.

    Returns:
        A profile: ``rows`` has all dispatches; ``timeline`` the live bytes (in GPU) by kind after
        each change, with the seconds since the start.

    Raises:
        BusyError: the device is already being profiled (profiles cannot be nested).
    """
    if not callable(function):
        raise InvalidArgumentError(
            f"profile takes a function without arguments, not {shown(function)}"
        )
    device = checked_device(device) or default_device()
    if device.queue.profiler is not None:
        raise BusyError(f"{device.info.name} is already being profiled: run one profile at a time")
    device.queue.flush()  # exclude earlier work
    before = memory(device)
    found = Profile()
    recorder = DispatchTimer(device)
    with device.memory.measured_peak() as peak:
        begun = time.perf_counter()
        device.queue.profiler = recorder.encode
        observer = device.memory.observer
        device.memory.observer = lambda live: found.timeline.append(
            (time.perf_counter() - begun, live)
        )
        try:
            found.result = function()
            if inspect.isawaitable(found.result):
                found.result = await found.result
            device.queue.flush()
        finally:
            device.queue.profiler = None
            device.memory.observer = observer
            found.rows = await recorder.rows()
        found.seconds = time.perf_counter() - begun
        found.peak_bytes, found.peak_bytes_in_gpu = peak()
    after = memory(device)
    found.new_tensors = after.num_tensors - before.num_tensors
    found.new_bytes = after.num_bytes - before.num_bytes
    found.new_bytes_in_gpu = after.num_bytes_in_gpu - before.num_bytes_in_gpu
    return found


def profile(function: Callable[[], Any], device: Device | None = None) -> Profile:
    """Blocking counterpart of :func:`profile_async`."""
    return sync(profile_async(function, device), "profile_async(...)")


class DispatchTimer(NotCopyable):
    """Encodes each dispatch in a pass of its own, between two timestamps where there are any."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._timed = "timestamp-query" in device.features
        self._commands: list[Command] = []
        self._ticks: list[Any] = []  # (buffer to map, number of timestamps)

    def encode(self, encoder: Any, batches: Sequence[Batch]) -> None:
        """Encode the commands of ``batches`` and record them."""
        commands = [command for batch in batches for command in batch.commands * batch.times]
        for start in range(0, len(commands), QUERIES // 2):
            self._encode_some(encoder, commands[start : start + QUERIES // 2])
        self._commands += commands

    def _encode_some(self, encoder: Any, commands: Sequence[Command]) -> None:
        queries = None
        if self._timed:
            queries = self._device.gpu.create_query_set(type="timestamp", count=2 * len(commands))
        for index, (pipeline, group, grid, _) in enumerate(commands):
            stamps = {
                "query_set": queries,
                "beginning_of_pass_write_index": 2 * index,
                "end_of_pass_write_index": 2 * index + 1,
            }
            passed = encoder.begin_compute_pass(timestamp_writes=stamps if queries else None)
            passed.set_pipeline(pipeline)
            passed.set_bind_group(0, group)
            passed.dispatch_workgroups(*grid)
            passed.end()
        if queries is not None:
            size = 16 * len(commands)
            resolved = self._device.create_buffer(size, "resolve")
            mapped = self._device.create_buffer(size, "staging")
            encoder.resolve_query_set(queries, 0, 2 * len(commands), resolved, 0)
            encoder.copy_buffer_to_buffer(resolved, 0, mapped, 0, size)
            self._ticks.append((mapped, resolved, size))

    async def rows(self) -> list[Row]:
        """Wait for the GPU; return a row per dispatch."""
        check_not_forked()
        ticks = array("Q")
        pending, self._ticks = self._ticks, []
        try:
            with self._device.translated_errors():
                for mapped, _, size in pending:
                    await wait(mapped.map_async("READ_NOSYNC", 0, size))
                    ticks.frombytes(mapped.read_mapped(0, size))
                    mapped.unmap()
        except (DeviceLostError, AttributeError):  # wgpu-py has no poller after a loss
            self._timed = False
        finally:
            for mapped, resolved, _ in pending:
                mapped.destroy()
                resolved.destroy()
        seconds: list[float | None] = [None] * len(self._commands)
        if self._timed:
            # Timestamps are nanoseconds (https://www.w3.org/TR/webgpu/#timestamp).
            seconds = [(b - a) * 1e-9 for a, b in zip(ticks[::2], ticks[1::2], strict=True)]
        return [
            Row(label.kernel, label.shapes, grid, taken, label.nbytes)
            for (_, _, grid, label), taken in zip(self._commands, seconds, strict=True)
        ]
