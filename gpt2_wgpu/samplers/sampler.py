"""Base classes of the samplers: temperature, penalties, seed, and the options for the GPU."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from gpt2_wgpu.nn import Penalties, SamplingOptions
from gpt2_wgpu.sampling_parameters import COMMON_PARAMETERS, SEED, TEMPERATURE, TOP_K

K = replace(TOP_K.range, low=1)  # 0, all tokens, is another sampler


class Sampler:
    """Base class of all samplers.

    Attributes may be changed between generations and take effect at once (KerasHub: only after
    ``compile``). Penalties (which KerasHub lacks) are applied before the temperature, in greedy
    search, too.

    Args:
        temperature: divisor of the logits, 0 to 1e30; 0 (below 1e-30, in f32) is greedy search
            (KerasHub: NaN).
        repetition_penalty: above 1, divides positive logits of tokens in the prompt or the new
            text and multiplies negative ones (Keskar et al. 2019, as in transformers; the start
            token is part of the prompt).
        presence_penalty: subtracted from the logits of tokens in the new text (as in OpenAI's
            API).
        frequency_penalty: subtracted once per occurrence in the new text (as in OpenAI's API).

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
    ) -> None:
        self.temperature = temperature
        self.repetition_penalty = repetition_penalty
        self.presence_penalty = presence_penalty
        self.frequency_penalty = frequency_penalty
        self.common()  # raises for a value out of range

    @property
    def temperature(self) -> float:
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = TEMPERATURE.range.check("temperature", value)

    def common(self) -> dict[str, float]:
        """Return the values of `COMMON_PARAMETERS` by name; InvalidArgumentError as above."""
        return {
            each.name: each.range.check(each.name, getattr(self, each.name))
            for each in COMMON_PARAMETERS
        }

    def penalties(self) -> Penalties:
        """Return the three penalties; InvalidArgumentError for a value out of range."""
        values = self.common()
        return Penalties(*(values[f"{each.name}_penalty"] for each in fields(Penalties)))

    def options(self, **chosen: Any) -> SamplingOptions:
        """Return ``SamplingOptions`` with the temperature, the common parameters and ``chosen``."""
        defaults = {"temperature": self.temperature, "penalties": self.penalties()}
        return SamplingOptions(**{**defaults, **chosen})

    def next_options(self) -> SamplingOptions:
        """Return the options of one generation; a seeded sampler advances its seed."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, without common parameters that have no effect."""
        return {"temperature": self.temperature, **self._common_config()}

    def _common_config(self) -> dict[str, Any]:
        values = self.common()
        return {
            each.name: values[each.name]
            for each in COMMON_PARAMETERS
            if values[each.name] != each.neutral
        }

    def __reduce__(self) -> tuple[Callable[[], Sampler], tuple[()]]:
        """Copy and pickle as a new sampler with the same arguments."""
        return partial(type(self), **self.get_config()), ()

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class SeededSampler(Sampler):
    """Base class of the random samplers.

    As in KerasHub, consecutive generations differ, and a new sampler with the same seed repeats
    the sequence.

    Args:
        temperature: see `Sampler`.
        seed: integer from 0 to 2^64 - 1; None takes one from the system.
        **others: see `Sampler`.
    """

    def __init__(self, temperature: float = 1.0, seed: int | None = None, **others: float) -> None:
        super().__init__(temperature, **others)
        self.seed = None if seed is None else int(SEED.range.check("seed", seed))
        self._start = secrets.randbits(64) if self.seed is None else self.seed
        self._drawn = 0
        self._lock = threading.Lock()

    def next_seed(self) -> int:
        """Return the next 64-bit seed of this sampler's sequence."""
        with self._lock:
            self._drawn += 1
            return _splitmix64(self._start + self._drawn * 0x9E3779B97F4A7C15)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def _splitmix64(state: int) -> int:
    """Output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    z = state & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)
