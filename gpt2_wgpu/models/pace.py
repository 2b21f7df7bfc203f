"""How much work a submit holds, so that none takes long: learned from those before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gpt2_wgpu.nn import RECENT

if TYPE_CHECKING:
    from gpt2_wgpu.tensors import Tensor
    from gpt2_wgpu.webgpu import Device

STEP_SECONDS = 0.05  # of a submit of steps: bounds the delay of a stream and of a stop
WORK_SECONDS = 0.1  # of a submit of a prompt's work: drivers end what takes seconds
UNMEASURED = 1e9  # operations of the first submit on a device: 0.1 s on a slow CPU


class Pace:
    """How many steps a submit holds: one at first, then as many as fit into its time.

    More steps a submit hide its fixed cost and the read-back's latency; fewer stop sooner.
    """

    def __init__(self) -> None:
        self._next = 1

    def steps(self, room: int) -> int:
        """Steps of the next submit, at most ``room``."""
        return min(self._next, room, RECENT)

    def took(self, seconds: float, steps: int) -> None:
        """Learn from a submit of ``steps`` that took ``seconds``."""
        fitting = int(STEP_SECONDS * steps / max(seconds, 1e-9))
        self._next = max(1, min(2 * steps, fitting, RECENT))


class WorkPace:
    """Bounds the time of submits of floating-point operations, which callers count.

    The first submit on a device is small, the next ones are as large as fits at the rate measured
    last. A fast device so needs one wait more than one submit would, a slow one waits ten times a
    second. What is computed does not depend on where submits end.
    """

    def __init__(self, device: Device, dtypes: str) -> None:
        self._device = device
        self._rates = _rates.setdefault(device, {})  # operations a second
        self._dtypes = dtypes
        self._pending = 0.0
        self._idle_since = time.perf_counter()

    async def make_room(self, work: float, there: Tensor) -> None:
        """Before ``work`` operations are dispatched: wait for those before, if both are too much.

        ``there``: any tensor of the device; reading it is the way to wait.
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
