"""Nucleus sampling (Holtzman et al. 2020)."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.sampler import K
from gpt2_wgpu.samplers.seeded_sampler import SeededSampler
from gpt2_wgpu.sampling_parameters import TOP_P


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
        **others: Any,
    ) -> None:
        super().__init__(temperature, seed, **others)
        self.p = TOP_P.range.check("p", p)
        self.k = None if k is None else int(K.check("k", k))

    def next_options(self) -> SamplingOptions:
        """See `Sampler.next_options`."""
        return self.options(
            top_k=0 if self.k is None else int(K.check("k", self.k)),
            top_p=TOP_P.range.check("p", self.p),
            seed=self.next_seed(),
        )

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"p": self.p, "k": self.k, **super().get_config()}
