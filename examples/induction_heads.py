"""Induction heads (Olsson et al. 2022): which heads look for what followed a token before.

In random tokens that are repeated, an induction head attends from each token to the one after its
first occurrence. Its score is the mean of its attention there, from 0 to 1. Without such heads the
repetition is harder to predict.
"""

import random
from collections.abc import Callable

import gpt2_wgpu as gw

LENGTH = 40

lm = gw.GPT2CausalLM.from_preset("fairytales", dtype="float32")
random.seed(1)
once = [random.randrange(1000, 4000) for _ in range(LENGTH)]
ids = once + once


def without(head: int) -> Callable[[gw.Tensor, str], gw.Tensor]:
    """Return a hook that sets the pattern of a head to zero."""

    def hook(pattern: gw.Tensor, name: str) -> gw.Tensor:
        keep = [[[0.0 if index == head else 1.0]] for index in range(pattern.shape[1])]
        return gw.ops.mul(pattern, keep)

    return hook


with gw.tidy():
    _, cache = lm.run_with_cache(ids, "*.hook_pattern")
    scores = []
    for layer in range(lm.backbone.num_layers):
        pattern = cache["pattern", layer].tolist()[0]
        for head, rows in enumerate(pattern):
            attended = [rows[q][q - LENGTH + 1] for q in range(LENGTH, 2 * LENGTH)]
            scores.append((sum(attended) / LENGTH, layer, head))

best = sorted(scores, reverse=True)[:3]
for score, layer, head in best:
    print(f"layer {layer}, head {head}: induction score {score:.2f}")


def repeated_loss() -> float:
    """Return the mean loss of the second half, in nats per token."""
    logprobs: list[float] = lm.logprobs(ids)
    return -sum(logprobs[LENGTH - 1 :]) / LENGTH


plain = repeated_loss()
with lm.hooks([(f"blocks.{layer}.attn.hook_pattern", without(head)) for _, layer, head in best]):
    print(f"loss of the repetition: {plain:.2f}, without these heads: {repeated_loss():.2f}")
lm.dispose()
