"""Readback: copies from the GPU to the host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.fork import check_not_forked
from gpt2_wgpu.webgpu.protocols import ReadableGPU
from gpt2_wgpu.webgpu.storage import Storage
from gpt2_wgpu.webgpu.waiting import can_submit_ahead, wait

Range = tuple[Storage, int, int]  # storage, byte offset, byte length


class Readback(NotCopyable):
    """Repeated readback of the same ranges through one persistent staging buffer."""

    def __init__(self, device: ReadableGPU, ranges: Sequence[Range]) -> None:
        self._device = device
        self._mapping: Any = None
        self._lengths = [nbytes for _, _, nbytes in ranges]
        self._staging = device.memory.allocate(sum(self._lengths), "staging")
        self._closed = False
        starts = [sum(self._lengths[:i]) for i in range(len(ranges))]
        self._copies = [
            (storage.buffer, offset, self._staging.buffer, start, nbytes)
            for (storage, offset, nbytes), start in zip(ranges, starts, strict=True)
        ]

    def __str__(self) -> str:
        return f"Readback of {sum(self._lengths):,} bytes from {self._device.info.name}"

    def begin(self) -> None:
        """Submit pending work and the copies; :meth:`finish` waits for them.

        Only one at a time per ``Readback``.
        """
        with self._device.translated_errors():
            self._device.queue.flush(self._copies)
            self._staging.pooled = False  # a cancelled task may leave it mapped
            # Map at once, so that the data are ready in finish(). wgpu's promise belongs to the
            # running event loop, which may be closed by then.
            self._mapping = self._map() if can_submit_ahead() else None

    async def finish(self) -> list[memoryview]:
        """Return the bytes of each range, as of :meth:`begin`."""
        buffer = self._staging.buffer
        with self._device.translated_errors():
            self._check_alive()  # a lost device may never resolve the promise,
            await wait(self._mapping or self._map())
            with self._device.memory.lock:
                self._check_alive()  # and reading its buffer would end the process
                total = sum(self._lengths)
                data = memoryview(bytearray(buffer.read_mapped(0, total, copy=False)))
                buffer.unmap()
            self._staging.pooled = True
        parts, start = [], 0
        for length in self._lengths:
            parts.append(data[start : start + length])
            start += length
        return parts

    def _map(self) -> Any:
        return self._staging.buffer.map_async("READ_NOSYNC", 0, sum(self._lengths))

    def _check_alive(self) -> None:
        """Raise DeviceLostError if the device is closed or lost."""
        check_not_forked()
        if not self._device.is_open:
            how = "closed" if self._device.is_closed else "lost"
            raise DeviceLostError(f"{self._device.info.name} was {how} while it was read")
        backends.check_alive(self._device.gpu)

    async def read(self) -> list[memoryview]:
        """Submit pending work and the copies, wait, and return the bytes of each range."""
        self.begin()
        return await self.finish()

    def close(self) -> None:
        """Release the staging buffer. Idempotent."""
        if not self._closed:
            self._closed = True
            self._staging.release()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not sys.is_finalizing():
            self._device.memory.defer(self.close)
