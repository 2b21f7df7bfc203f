"""What tests of sessions share: a random model, a prompt, and texts from scratch."""

from __future__ import annotations

import gpt2_wgpu as gw
from tests.memory.tiny import ids_of, packed

PROMPT = [(7 * t + t * t) % 101 for t in range(30)]


def model_of(dtype="float32", cache_dtype="float32", seed=0, layers=2):
    backbone = gw.GPT2Backbone(
        101, layers, 4, 96, 160, max_sequence_length=160, dtype=dtype, cache_dtype=cache_dtype,
        initializer_range=0.2, seed=seed,
    )  # fmt: skip
    return gw.GPT2CausalLM(backbone)


def new_ids(lm, prompt, count, sampler):
    """What ``lm.generate`` gives, from scratch."""
    inputs = packed([prompt], len(prompt) + count)
    (ids,) = ids_of(lm.generate(inputs, stop_token_ids=None, sampler=sampler))
    return ids[len(prompt) :]


def go_on(session, count, sampler="greedy", **options):
    return session.generate(count, stop_token_ids=None, sampler=sampler, **options)
