"""Size of submits, limited in time by measurements of previous ones."""

from __future__ import annotations

import sys
import time
from weakref import WeakKeyDictionary

from gpt2_wgpu.nn import RECENT
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.webgpu import Device

STEP_SECONDS = 0.05  # per submit of decode steps; bounds the latency of a stream and of a stop
FRAME_SECONDS = 0.016  # the same in a browser on a GPU, which draws the page between submits
WORK_SECONDS = 0.1  # per submit of prefill; drivers kill submits of several seconds
UNMEASURED = 1e9  # operations of the first submit on a device; 0.1 s on a slow CPU


class Pace:
    """Steps per submit: one at first, then as many as fit into its time.

    More steps hide the fixed cost of a submit and the latency of readback; fewer stop sooner.
    """

    def __init__(self, device: Device) -> None:
        self._shares_gpu = sys.platform == "emscripten" and not device.info.is_software
        self._next = 1

    def steps(self, room: int) -> int:
        """Return the number of steps of the next submit, at most ``room``."""
        return min(self._next, room, RECENT)

    def took(self, seconds: float, steps: int) -> None:
        """Update the estimate by a submit of ``steps`` that took ``seconds``."""
        most = FRAME_SECONDS if self._shares_gpu else STEP_SECONDS
        fitting = int(most * steps / max(seconds, 1e-9))
        self._next = max(1, min(2 * steps, fitting, RECENT))


class WorkPace:
    """Time limit of submits of floating-point operations, counted by the caller.

    The first submit on a device is small; the next ones have the size that fits at the last
    measured rate. A fast device has one additional wait, a slow one waits ten times per second.
    Results do not depend on the size of submits.
    """

    def __init__(self, device: Device, dtypes: str) -> None:
        self._device = device
        self._rates = _rates.setdefault(device, {})  # operations per second
        self._dtypes = dtypes
        self._pending = 0.0
        self._idle_since = time.perf_counter()

    async def make_room(self, work: float, there: Tensor) -> None:
        """Wait for earlier work if it and the next ``work`` operations exceed the limit.

        ``there``: any tensor of the device, read in order to wait.
        """
        rate = self._rates.get(self._dtypes)
        most = UNMEASURED if rate is None else rate * WORK_SECONDS
        if self._pending and self._pending + work > most:
            await self._device.queue.read([(there.storage, 0, 4)])
            now = time.perf_counter()
            self._rates[self._dtypes] = self._pending / max(now - self._idle_since, 1e-4)
            self._pending, self._idle_since = 0.0, now
        self._pending += work


_rates: WeakKeyDictionary[Device, dict[str, float]] = WeakKeyDictionary()
