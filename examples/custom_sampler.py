"""Custom samplers: options of the GPU's sampler, a choice in Python, and processed logits.

`next_options` is called once per generation; the GPU samples with the options that it returns, so a
sampler of this kind costs no time per token. `get_next_token` is KerasHub's extension point: it is
called for every token, and the GPU waits for its result. Logits processors come before either; one
that only calls functions of `gw.ops` is recorded with the step.
"""

from typing import Any

import numpy as np

import gpt2_wgpu as gw


class Cooling(gw.samplers.TopK):
    """Top-k sampling whose temperature falls with each text."""

    def next_options(self) -> Any:
        self.temperature *= 0.5
        return super().next_options()


class MinP(gw.samplers.Sampler):
    """Min-p sampling: only tokens with at least `p` times the largest probability."""

    def __init__(self, p: float, seed: int) -> None:
        super().__init__()
        self.p = p
        self.random = np.random.default_rng(seed)

    def get_next_token(self, probabilities: gw.Tensor) -> list[int]:
        tokens = []
        for row in probabilities.numpy().astype(float):
            row = np.where(row < self.p * row.max(), 0, row)
            tokens.append(int(self.random.choice(row.size, p=row / row.sum())))
        return tokens


with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    sampler = Cooling(k=50, temperature=2.0, seed=1)
    lm.compile(sampler)
    for _ in range(3):
        text = lm.generate("The wolf", max_length=16)
        print(f"temperature {sampler.temperature:g}: {text}")

    lm.compile(MinP(0.1, seed=1))
    print(f"min-p: {lm.generate('The wolf', max_length=16)}")

    assert lm.preprocessor is not None
    (the,) = lm.preprocessor.tokenizer.encode(" the")

    def avoid_the(token_ids: Any, logits: gw.Tensor) -> gw.Tensor:
        """Lower the logits of the token " the"."""
        update = gw.tensor([[-1e9]] * logits.shape[0])
        return gw.ops.slice_update(logits, (0, the), update)

    lm.compile("greedy", logits_processors=[avoid_the])
    print(f"without the: {lm.generate('The wolf', max_length=16)}")
