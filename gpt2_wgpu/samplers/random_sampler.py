"""Sampling from the whole distribution."""

from __future__ import annotations

from gpt2_wgpu.gpu.layers import SamplingOptions
from gpt2_wgpu.samplers.sampler import SeededSampler


class RandomSampler(SeededSampler):
    """Draws from softmax(logits / temperature) over the whole vocabulary."""

    def next_options(self) -> SamplingOptions:
        return SamplingOptions(
            temperature=self.temperature, seed=self.next_seed(), penalties=self.penalties()
        )
