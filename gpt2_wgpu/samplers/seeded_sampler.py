"""Base class of the random samplers: the seed and its sequence."""

from __future__ import annotations

import copy
import secrets
import threading
from typing import Any, Self

from gpt2_wgpu.samplers.sampler import Sampler
from gpt2_wgpu.sampling_parameters import SEED


class SeededSampler(Sampler):
    """Base class of the random samplers.

    As in KerasHub, consecutive generations differ, and a new sampler with the same seed repeats
    the sequence.

    Args:
        temperature: see `Sampler`.
        seed: integer from 0 to 2^64 - 1; None takes one from the system.
        **others: see `Sampler`.
    """

    def __init__(self, temperature: float = 1.0, seed: int | None = None, **others: Any) -> None:
        super().__init__(temperature, **others)
        self._lock = threading.Lock()
        self.seed = seed

    @property
    def seed(self) -> int | None:
        """The seed; assigning one begins its sequence. InvalidArgumentError if out of range."""
        return self._seed

    @seed.setter
    def seed(self, value: int | None) -> None:
        seed = None if value is None else int(SEED.range.check("seed", value))
        with self._lock:
            self._seed = seed
            self._start = secrets.randbits(64) if seed is None else seed
            self._drawn = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    def reseeded(self, seed: int) -> Self:
        """Return a copy at the start of the sequence of ``seed``."""
        copied = copy.copy(self)
        copied.seed = seed
        return copied

    def next_seed(self) -> int:
        """Return the next 64-bit seed of this sampler's sequence."""
        with self._lock:
            self._drawn += 1
            return _splitmix64(self._start + self._drawn * 0x9E3779B97F4A7C15)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {**super().get_config(), "seed": self.seed}


def _splitmix64(state: int) -> int:
    """Output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    z = state & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)
