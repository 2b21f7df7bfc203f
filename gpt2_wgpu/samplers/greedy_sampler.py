"""Greedy search."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.gpu.layers import SamplingOptions
from gpt2_wgpu.samplers.sampler import Sampler


class GreedySampler(Sampler):
    """Always the most probable token (the lowest id of equals)."""

    def __init__(self, **penalties: float) -> None:
        super().__init__(0.0, **penalties)

    def next_options(self) -> SamplingOptions:
        return SamplingOptions(temperature=0.0, penalties=self.penalties())

    def get_config(self) -> dict[str, Any]:
        return self._penalty_config()
