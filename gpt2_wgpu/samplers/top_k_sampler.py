"""Top-k sampling (Fan et al. 2018)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.sampler import SeededSampler
from gpt2_wgpu.validation import integer


class TopKSampler(SeededSampler):
    """Random sampling from the ``k`` most probable tokens; all, if ``k`` exceeds the vocabulary."""

    def __init__(
        self, k: int = 5, seed: int | None = None, temperature: float = 1.0, **penalties: float
    ) -> None:
        super().__init__(temperature, seed, **penalties)
        self.k = integer("k", k, 1, 2**31 - 1)

    def next_options(self) -> SamplingOptions:
        return SamplingOptions(
            temperature=self.temperature,
            top_k=integer("k", self.k, 1, 2**31 - 1),
            seed=self.next_seed(),
            penalties=self.penalties(),
        )

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, **super().get_config()}
