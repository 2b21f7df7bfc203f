"""A recording between two uses: its buffers are in the pool, and none of them counts as live."""

from __future__ import annotations

import sys

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.webgpu.recording import Recording


class IdleRecording(NotCopyable):
    """A recording that cannot be replayed until :meth:`resume`.

    Buffers that only it refers to are pooled as a group. Others (weights) stay with their owners,
    who may free them. If any is gone, the recording is of no use any more.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._pool = recording.device.memory
        with self._pool.lock:
            self._pins = recording.unpin()
            own = [storage for storage in self._pins if storage.references == 1]
            self._shared = [storage for storage in self._pins if storage.references > 1]
            for storage in self._shared:
                storage.release()
            self._reserve = self._pool.set_aside(own)

    def resume(self) -> bool:
        """Make the recording usable; False, for good, if a buffer has been freed."""
        self._pool.drain()
        with self._pool.lock:
            if not self._can_resume():
                self.close()
                return False
            for storage in self._shared:
                storage.retain()
            self._recording.pin(self._pins)
        return True

    def _can_resume(self) -> bool:
        if 0 in [storage.references for storage in self._shared]:
            return False  # freed by its owner
        try:
            return self._pool.take_back(self._reserve)
        except OutOfGPUMemoryError:
            return False  # new buffers may be fewer; if not, they say what is missing

    def close(self) -> None:
        """Drop the recording, and let others have the buffers. Idempotent."""
        self._pool.give_up(self._reserve)
        self._recording.close()

    def __del__(self) -> None:
        reserve = getattr(self, "_reserve", None)
        if reserve is not None and reserve.is_intact and not sys.is_finalizing():
            self._pool.defer(self.close)
