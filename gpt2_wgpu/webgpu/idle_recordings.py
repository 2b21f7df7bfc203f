"""Recordings between two uses: their buffers are in the pool, nothing of them counts as live."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.webgpu.recording import Recording


class IdleRecordings(NotCopyable):
    """``recordings`` of one device, which are idle until :meth:`resume`.

    Buffers that only they refer to are pooled as a group. Others (weights) stay with their owners,
    who may free them. Either way the recordings are of no use any more, and resume says so.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = list(recordings)
        self._pool = recordings[0].device.memory
        with self._pool.lock:
            self._pins = [recording.unpin() for recording in recordings]
            every = {id(storage): storage for pins in self._pins for storage in pins}
            self._counts = Counter(id(storage) for pins in self._pins for storage in pins)
            own = [s for key, s in every.items() if s.references == self._counts[key]]
            self._shared = [s for key, s in every.items() if s.references > self._counts[key]]
            for storage in self._shared:
                storage.references -= self._counts[id(storage)]
            for storage in own:
                storage.references = 1
            self._reserve = self._pool.set_aside(own)

    def resume(self) -> bool:
        """Make the recordings usable; False, for good, if a buffer has been freed."""
        self._pool.drain()
        with self._pool.lock:
            if not self._can_resume():
                self.close()
                return False
            for storage in self._reserve.storages:
                storage.references = self._counts[id(storage)]
            for storage in self._shared:
                storage.references += self._counts[id(storage)]
            for recording, pins in zip(self._recordings, self._pins, strict=True):
                recording.pin(pins)
        return True

    def _can_resume(self) -> bool:
        if not all(storage.references for storage in self._shared):
            return False  # freed by its owner
        try:
            return self._pool.take_back(self._reserve)
        except OutOfGPUMemoryError:
            return False  # new buffers may be fewer; if not, they say what is missing

    def close(self) -> None:
        """Drop the recordings, and let others have the buffers. Idempotent."""
        self._pool.give_up(self._reserve)
        for recording in self._recordings:
            recording.close()

    def __del__(self) -> None:
        reserve = getattr(self, "_reserve", None)
        if reserve is not None and reserve.is_intact and not sys.is_finalizing():
            self._pool.defer(self.close)
