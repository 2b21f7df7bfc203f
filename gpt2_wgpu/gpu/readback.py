"""From the GPU to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.gpu.memory import Storage
from gpt2_wgpu.gpu.waiting import wait

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device

Range = tuple[Storage, int, int]  # storage, byte offset, byte length


class Readback:
    """Reads the same ranges again and again through one persistent staging buffer."""

    def __init__(self, device: Device, ranges: Sequence[Range]) -> None:
        self._device = device
        self._lengths = [nbytes for _, _, nbytes in ranges]
        self._staging = device.memory.allocate(sum(self._lengths), "staging")
        starts = [sum(self._lengths[:i]) for i in range(len(ranges))]
        self._copies = [
            (storage.buffer, offset, self._staging.buffer, start, nbytes)
            for (storage, offset, nbytes), start in zip(ranges, starts, strict=True)
        ]

    async def read(self) -> list[memoryview]:
        """Submit what is pending and the copies; wait; the bytes of each range."""
        buffer = self._staging.buffer
        total = sum(self._lengths)
        with self._device.translated_errors():
            self._device.queue.flush(self._copies)
            self._staging.pooled = False  # a cancelled task leaves it half mapped
            await wait(buffer.map_async("READ_NOSYNC", 0, total))
            with self._device.memory.lock:
                if not self._device.is_open:  # reading a destroyed buffer would end the process
                    raise DeviceLostError(f"{self._device!r} was closed while it was read")
                data = memoryview(bytearray(buffer.read_mapped(0, total, copy=False)))
                buffer.unmap()
            self._staging.pooled = True
        parts, start = [], 0
        for length in self._lengths:
            parts.append(data[start : start + length])
            start += length
        return parts

    def close(self) -> None:
        self._staging.release()
