"""Locally typical sampling (Meister et al. 2022)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.samplers.random_sampler import RandomSampler


class TypicalSampler(RandomSampler):
    """Random sampling from the locally typical tokens.

    These are the tokens whose information, -log(probability), is closest to the entropy of the
    distribution, until their probability reaches ``typical_p``. The most probable token may be
    missing.
    """

    def __init__(
        self,
        typical_p: float = 0.9,
        seed: int | None = None,
        temperature: float = 1.0,
        **others: Any,
    ) -> None:
        super().__init__(seed, temperature, typical_p=typical_p, **others)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"typical_p": float(self.common()["typical_p"]), **super().get_config()}
