"""Custom sampler: change the options of each generation in a subclass.

`next_options` is called once per generation; the GPU samples with the options that it returns, so a
sampler of this kind costs no time per token.
"""

from typing import Any

import gpt2_wgpu as gw


class Cooling(gw.samplers.TopK):
    """Top-k sampling whose temperature falls with each text."""

    def next_options(self) -> Any:
        self.temperature *= 0.5
        return super().next_options()


sampler = Cooling(k=50, temperature=2.0, seed=1)
with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    lm.compile(sampler=sampler)
    for _ in range(3):
        text = lm.generate("The wolf", max_length=16)
        print(f"temperature {sampler.temperature:g}: {text}")
