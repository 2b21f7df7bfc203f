"""Guard bands: memory that a kernel must not write is filled with a pattern and checked.

WebGPU hides index errors: writes outside a binding are ignored, and reads are clamped. So
under :class:`GuardBands` every binding is larger than its tensor; all of it, the tensor included,
holds NaN until a kernel or an upload writes there. An element left unwritten or read from outside
shows as NaN, an element written outside as a damaged pattern. Each tensor has a NaN of its own, so
that copying one band onto another is noticed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2_wgpu.tensors import dispatch
from gpt2_wgpu.webgpu.waiting import sync

NAN_BITS = 0x7FC00000  # a quiet NaN, + the number of the tensor
BAND = 256  # bytes after each tensor, at least


@dataclass
class Guarded:
    """A buffer that is looked at when the test ends, whether or not its tensor still lives."""

    buffer: Any
    size: int
    nbytes: int  # of the tensor: what may be written
    bits: int
    freed: bool = False


class GuardBands:
    def __init__(self, device, monkeypatch):
        self._device = device
        self._guarded = {}  # by id of the buffer
        manager = device.memory
        self._allocate, self._reclaim = manager.allocate, manager.reclaim
        self._discard, self._range_of = manager.discard, dispatch._range_of
        manager.trim()  # nothing pooled: every buffer from here on is fresh, see `allocate`
        monkeypatch.setattr(manager, "allocate", self.allocate)
        monkeypatch.setattr(manager, "reclaim", self.reclaim)
        monkeypatch.setattr(manager, "discard", self.destroy)
        monkeypatch.setattr(dispatch, "_range_of", self.range_of)

    def allocate(self, nbytes, kind="workspace"):
        if kind in ("staging", "parameters"):
            return self._allocate(nbytes, kind)
        storage = self._allocate(nbytes + BAND, kind)
        bits = NAN_BITS + len(self._guarded) + 1
        # No pending command names a fresh buffer, so this need not submit them, as `upload` does.
        pattern = np.full(storage.size // 4, bits, np.uint32)
        self._device.gpu.queue.write_buffer(storage.buffer, 0, memoryview(pattern))
        guarded = Guarded(storage.buffer, storage.size, nbytes, bits)
        self._guarded[id(storage.buffer)] = guarded
        return storage

    def reclaim(self, storage):
        """Frees as usual, but neither pools nor destroys the buffer before it is checked."""
        self._reclaim(storage)
        guarded = self._guarded.get(id(storage.buffer))
        if guarded and not guarded.freed:
            guarded.freed = True
            assert self._device.memory._take(storage.kind, storage.size) is storage.buffer

    def destroy(self, buffers):
        for buffer in buffers:
            if id(buffer) in self._guarded:
                self._guarded[id(buffer)].freed = True
        self._discard([buffer for buffer in buffers if id(buffer) not in self._guarded])

    def range_of(self, device, kernel, name, binding):
        """A tensor, or a part that ends where its tensor does, is bound with the band behind it."""
        storage, offset, nbytes = self._range_of(device, kernel, name, binding)
        guarded = self._guarded.get(id(storage.buffer))
        if guarded and offset + nbytes >= guarded.nbytes:
            nbytes = storage.size - offset
        return (storage, offset, nbytes)

    def check(self):
        """Fails if anything but the tensors themselves was written."""
        guarded, self._guarded = list(self._guarded.values()), {}
        ranges = [(entry, 0, entry.size) for entry in guarded]
        contents = sync(self._device.queue.read(ranges), "read") if ranges else []
        pairs = zip(guarded, contents, strict=True)
        damaged = [entry for entry, raw in pairs if _is_damaged(entry, raw)]
        self._discard([entry.buffer for entry in guarded if entry.freed])
        assert not damaged, f"written after the {damaged[0].nbytes} bytes of a tensor"


def _is_damaged(entry, raw):
    band = np.frombuffer(raw, np.uint32)[-(-entry.nbytes // 4) :]
    return bool((band != entry.bits).any())
