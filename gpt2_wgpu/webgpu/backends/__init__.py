"""Differences between wgpu's backends: its native one and ours for browsers (``browser``).

A backend for browsers that wgpu may ship one day has none of the methods that ours adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from gpt2_wgpu.webgpu.backends.native_bundle import native_bundle
from gpt2_wgpu.webgpu.waiting import wait

Bundle = Callable[[Any, int], None]  # of a compute pass, and how many times over
_PIECE = 4 << 20  # bytes of a blob in Python's memory at a time; whole words


class UnusableGPU:
    """Stands in for a ``wgpu.GPUDevice`` that may not be used: every use raises ``error``."""

    def __init__(self, gpu: Any, error: type[Exception], message: str) -> None:
        self.__dict__.update(_kept=gpu, _error=error, _message=message)

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error(self._message)


def tells_late(gpu: Any) -> bool:
    """Whether errors of a call are raised only by what waits for the GPU: in browsers."""
    return not hasattr(gpu, "_poll_wait")


def settle(gpu: Any) -> None:
    """Resolve every promise of a ``wgpu.GPUDevice`` that is about to be destroyed.

    wgpu-py's ``destroy`` stops the thread that resolves them: a task that awaits one would wait
    for ever (0.32; ``GPUDevice.destroy`` in its native backend). Browsers reject them themselves.
    """
    if not tells_late(gpu):
        gpu._poll_wait()


def check_alive(gpu: Any) -> None:
    """Raises if the device is lost, where reading a buffer of such a device ends the process."""
    if not tells_late(gpu):
        # wgpu has no other way to ask (0.32), and none that costs less: 10 µs a submit. An empty
        # command buffer would do too, but one that is never submitted is never freed.
        gpu.create_bind_group_layout(entries=[])


def bundle(gpu: Any, commands: Sequence[tuple[Any, ...]]) -> Bundle | None:
    """What writes ``commands`` (pipeline, bind group, workgroups, ...) into a pass in one step.

    It is good for as long as they are alive. None where there is no such way.
    """
    if not hasattr(gpu, "create_compute_bundle"):  # a browser's: see backends/browser
        return native_bundle(commands)
    made = gpu.create_compute_bundle(commands)
    return lambda compute, times: compute.execute_bundle(made, times)


def on_loss(gpu: Any, tell: Callable[[], None]) -> None:
    """Call ``tell`` when the device is lost, where the backend knows before a call fails."""
    if hasattr(gpu, "on_loss"):
        gpu.on_loss(tell)


async def lost(gpu: Any) -> str:
    """Wait until the device is lost; why. Waits for ever where the backend does not tell."""
    if not hasattr(gpu, "on_loss"):
        await asyncio.get_running_loop().create_future()
    found = await gpu._get_lost_async()
    return str(found.message or found.reason)


async def write_blob(gpu: Any, buffer: Any, blob: Any) -> None:
    """Write all of JavaScript's ``Blob`` to ``buffer``, zeros up to the next word."""
    if hasattr(gpu.queue, "write_blob_async"):
        await wait(gpu.queue.write_blob_async(buffer, blob))
        return
    for begin in range(0, blob.size, _PIECE):
        piece = await blob.slice(begin, min(begin + _PIECE, blob.size)).arrayBuffer()
        data = piece.to_bytes()
        gpu.queue.write_buffer(buffer, begin, data.ljust(-(-len(data) // 4) * 4, b"\0"))
