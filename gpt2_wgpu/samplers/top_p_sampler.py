"""Nucleus sampling (Holtzman et al. 2020)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.sampler import SeededSampler
from gpt2_wgpu.validation import integer, number


class TopPSampler(SeededSampler):
    """Random sampling from the nucleus: tokens preceded by a probability mass of at most ``p``.

    Tokens are ordered by probability, so at least one is kept. ``k`` first truncates to the k
    most probable; their probabilities are not renormalised before ``p`` (as in KerasHub).
    """

    def __init__(
        self,
        p: float = 0.1,
        k: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        **penalties: float,
    ) -> None:
        super().__init__(temperature, seed, **penalties)
        self.p = number("p", p, 0.0, 1.0, open_low=True)
        self.k = None if k is None else integer("k", k, 1, 2**31 - 1)

    def next_options(self) -> SamplingOptions:
        return SamplingOptions(
            temperature=self.temperature,
            top_k=0 if self.k is None else integer("k", self.k, 1, 2**31 - 1),
            top_p=number("p", self.p, 0.0, 1.0, open_low=True),
            seed=self.next_seed(),
            penalties=self.penalties(),
        )

    def get_config(self) -> dict[str, Any]:
        return {"p": self.p, "k": self.k, **super().get_config()}
