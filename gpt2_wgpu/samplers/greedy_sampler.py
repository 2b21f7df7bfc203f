"""Greedy search."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.sampler import Sampler


class GreedySampler(Sampler):
    """Greedy search: the most probable token; of equal ones, the lowest id.

    ``temperature`` is validated but has no effect, as in KerasHub.
    """

    def __init__(self, temperature: float = 1.0, **others: Any) -> None:
        super().__init__(temperature, **others)

    def next_options(self) -> SamplingOptions:
        """See `Sampler.next_options`."""
        return self.options(temperature=0.0)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        given = {} if self.temperature == 1 else {"temperature": self.temperature}
        return {**given, **self._common_config()}
