"""Guard bands: what a kernel may not touch is filled with a pattern, and looked at afterwards.

WebGPU hides an index error: what lies outside a binding is not written, and reads are clamped. So
under :class:`GuardBands` every binding is larger than its tensor; all of it, the tensor included,
holds NaN until a kernel or an upload writes there. An element left unwritten or read from outside
shows as NaN, an element written outside as a damaged pattern.
"""

from __future__ import annotations

import numpy as np

from gpt2_wgpu.gpu import commands
from gpt2_wgpu.gpu.tensor import Tensor
from gpt2_wgpu.gpu.waiting import sync

NAN_BITS = 0x7FC0DEAD  # a quiet NaN; as an integer 2,143,346,349
BAND = 256  # bytes after each tensor, at least


class GuardBands:
    def __init__(self, device, monkeypatch):
        self._device = device
        self._allocate = device.memory.allocate
        self._range_of = commands._range_of
        self._guarded = []
        monkeypatch.setattr(device.memory, "allocate", self.allocate)
        monkeypatch.setattr(commands, "_range_of", self.range_of)

    def allocate(self, nbytes, kind="workspace"):
        if kind == "staging":
            return self._allocate(nbytes, kind)
        storage = self._allocate(nbytes + BAND, kind)
        pattern = np.full(storage.size // 4, NAN_BITS, np.uint32)
        self._device.queue.upload(storage, 0, memoryview(pattern))
        self._guarded.append((storage.retain(), nbytes))
        return storage

    def range_of(self, device, kernel, name, binding):
        found = self._range_of(device, kernel, name, binding)
        if not isinstance(binding, Tensor):
            return found
        return (binding.storage, 0, binding.storage.size)

    def check(self):
        """Fails if anything but the tensors themselves was written."""
        guarded, self._guarded = self._guarded, []
        for storage, nbytes in guarded:
            (raw,) = sync(self._device.queue.read([(storage, 0, storage.size)]), "read")
            storage.release()
            band = np.frombuffer(raw, np.uint32)[-(-nbytes // 4) :]
            damaged = np.flatnonzero(band != NAN_BITS)
            assert not damaged.size, f"written {damaged[0]} words after {nbytes} bytes"
