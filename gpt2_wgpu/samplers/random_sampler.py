"""Random sampling from the whole distribution."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers.seeded_sampler import SeededSampler


class RandomSampler(SeededSampler):
    """Random sampling from softmax(logits / temperature) over the whole vocabulary.

    The first argument is the seed, as in KerasHub: ``RandomSampler(42)`` has temperature 1.
    """

    def __init__(self, seed: int | None = None, temperature: float = 1.0, **others: Any) -> None:
        super().__init__(temperature, seed, **others)

    def next_options(self) -> SamplingOptions:
        """See `Sampler.next_options`."""
        return self.options(seed=self.next_seed())
