"""Top-k sampling (Fan et al. 2018)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.sampler import K
from gpt2_wgpu.samplers.seeded_sampler import SeededSampler


class TopKSampler(SeededSampler):
    """Random sampling from the ``k`` most probable tokens; all, if ``k`` exceeds the vocabulary."""

    def __init__(
        self, k: int = 5, seed: int | None = None, temperature: float = 1.0, **others: Any
    ) -> None:
        super().__init__(temperature, seed, **others)
        self.k = int(K.check("k", k))

    def next_options(self) -> SamplingOptions:
        """See `Sampler.next_options`."""
        return self.options(top_k=int(K.check("k", self.k)), seed=self.next_seed())

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"k": self.k, **super().get_config()}
