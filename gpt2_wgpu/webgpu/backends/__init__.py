"""Differences between wgpu's backends: its native one and ours for browsers (``browser``).

A future browser backend of wgpu will lack the methods that ours adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from gpt2_wgpu.webgpu.backends.native_bind_groups import native_bind_groups
from gpt2_wgpu.webgpu.backends.native_bundle import native_bundle
from gpt2_wgpu.webgpu.waiting import wait

Bundle = Callable[[Any, int], None]  # arguments: compute pass, number of repetitions
# A layout, and (binding, buffer, offset, size) of each entry.
GroupEntries = tuple[Any, Sequence[tuple[int, Any, int, int]]]
_PIECE = 4 << 20  # bytes of a blob in Python's memory at a time; a multiple of 4


class UnusableGPU:
    """Placeholder of a ``wgpu.GPUDevice`` that must not be used: every access raises ``error``."""

    def __init__(self, gpu: Any, error: type[Exception], message: str) -> None:
        self.__dict__.update(_kept=gpu, _error=error, _message=message)

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error(self._message)


def errors_are_async(gpu: Any) -> bool:
    """Return whether errors are asynchronous (browsers): raised when waiting for the GPU."""
    return not hasattr(gpu, "_poll_wait")


def flush_promises(gpu: Any) -> None:
    """Resolve all promises of a ``wgpu.GPUDevice`` before it is destroyed.

    wgpu-py's ``destroy`` stops the thread that resolves them, so that a task awaiting one would
    never end (0.32; ``GPUDevice.destroy`` in its native backend). Browsers reject them themselves.
    """
    if not errors_are_async(gpu):
        gpu._poll_wait()


def check_alive(gpu: Any) -> None:
    """Raise if the device is lost; natively, reading a buffer of a lost device ends the process."""
    if not errors_are_async(gpu):
        # The only and cheapest check in wgpu 0.32: 10 µs per submit. An empty command buffer would
        # work, too, but is leaked unless submitted.
        gpu.create_bind_group_layout(entries=[])


def bundle(gpu: Any, commands: Sequence[tuple[Any, ...]]) -> Bundle | None:
    """Return a function that encodes ``commands`` (pipeline, bind group, workgroups, ...) at once.

    Valid while the commands are alive. None if the backend does not support it.
    """
    if not hasattr(gpu, "create_compute_bundle"):  # only in our browser backend
        return native_bundle(commands)
    made = gpu.create_compute_bundle(commands)
    return lambda compute, times: compute.execute_bundle(made, times)


def bind_groups(gpu: Any, wanted: Sequence[GroupEntries]) -> Sequence[Any]:
    """Create a bind group for each layout and its entries."""
    made = None if errors_are_async(gpu) else native_bind_groups(gpu, wanted)
    return [_bind_group(gpu, *each) for each in wanted] if made is None else made


def _bind_group(gpu: Any, layout: Any, entries: Sequence[tuple[int, Any, int, int]]) -> Any:
    """Create a bind group by wgpu's public call."""
    described = [
        {"binding": binding, "resource": {"buffer": buffer, "offset": offset, "size": nbytes}}
        for binding, buffer, offset, nbytes in entries
    ]
    return gpu.create_bind_group(layout=layout, entries=described)


def on_loss(gpu: Any, callback: Callable[[], None]) -> None:
    """Call ``callback`` on device loss, if the backend reports it before a call fails."""
    if hasattr(gpu, "on_loss"):
        gpu.on_loss(callback)


async def lost(gpu: Any) -> str:
    """Wait for the loss of the device; return the reason. Never ends on other backends."""
    if not hasattr(gpu, "on_loss"):
        await asyncio.get_running_loop().create_future()
    found = await gpu._get_lost_async()
    return str(found.message or found.reason)


async def write_blob(gpu: Any, buffer: Any, blob: Any) -> None:
    """Write JavaScript's ``Blob`` to ``buffer``, zero-padded to a multiple of 4 bytes."""
    if hasattr(gpu.queue, "write_blob_async"):
        await wait(gpu.queue.write_blob_async(buffer, blob))
        return
    for begin in range(0, blob.size, _PIECE):
        piece = await blob.slice(begin, min(begin + _PIECE, blob.size)).arrayBuffer()
        data = piece.to_bytes()
        gpu.queue.write_buffer(buffer, begin, data.ljust(-(-len(data) // 4) * 4, b"\0"))
