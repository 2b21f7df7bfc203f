"""A tiny model for hooks, and what tests of hooks share."""

from __future__ import annotations

import gpt2_wgpu as gw
from tests.memory import tiny

IDS = [[5, 9, 200, 31, 7], [1, 2, 3, 4, 250]]
LAST = "blocks.1.hook_resid_post"


def model():
    """A tiny model with large weights, so that each part of it counts."""
    backbone = gw.GPT2Backbone(
        257, 2, 2, 16, 32, max_sequence_length=144, seed=1, initializer_range=0.3,
        cache_dtype="float32",
    )  # fmt: skip
    preprocessor = gw.GPT2CausalLMPreprocessor(tiny.tokenizer(), tiny.CONTEXT)
    lm = gw.GPT2CausalLM(backbone, preprocessor)
    lm.compile(sampler="greedy")
    return lm


def logits_of(lm, hooks=(), ids=IDS):
    """Logits as nested lists, flat."""
    with gw.tidy():
        return flat(lm.run_with_hooks(ids, hooks))


def flat(tensor):
    return tensor.view((tensor.size,)).tolist()


def close(found, expected, tolerance=1e-4):
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= tolerance


def steering(size):
    """A vector, and a hook that adds it."""
    vector = gw.keep(gw.tensor([((21 * i) % 11 - 5) / 2 for i in range(size)]))
    return vector, lambda tensor, name: gw.ops.add(tensor, vector)
