"""Min-p sampling (Nguyen et al. 2024)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.samplers.random_sampler import RandomSampler


class MinPSampler(RandomSampler):
    """Random sampling from tokens with at least ``min_p`` times the largest probability."""

    def __init__(
        self,
        min_p: float = 0.1,
        seed: int | None = None,
        temperature: float = 1.0,
        **others: Any,
    ) -> None:
        super().__init__(seed, temperature, min_p=min_p, **others)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"min_p": float(self.common()["min_p"]), **super().get_config()}
