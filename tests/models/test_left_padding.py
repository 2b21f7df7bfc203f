"""Packed ids that are padded on the left, as transformers' tokenizers pad them."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu import samplers
from tests.memory.tiny import packed

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]


def padded_left(prompts, length):
    """Packed ids as transformers' tokenizer pads them, with room for the text on the right."""
    width = max(map(len, prompts))
    before = [width - len(prompt) for prompt in prompts]
    after = length - width
    return before, {
        "token_ids": [
            [9] * pad + prompt + [0] * after for pad, prompt in zip(before, prompts, strict=True)
        ],
        "padding_mask": [[0] * pad + [1] * (width - pad) + [0] * after for pad in before],
    }


def test_padding_on_the_left_has_no_effect(small, small_lm):
    import torch

    reference, _ = small
    prompts = [[5, 9, 11, 60], [7], [100, 3, 4]]
    small_lm.compile(sampler="greedy")
    before, inputs = padded_left(prompts, 20)
    out = small_lm.generate(inputs, stop_token_ids=None)
    with torch.no_grad():
        expected = reference.generate(
            torch.tensor(inputs["token_ids"])[:, :4],
            attention_mask=torch.tensor(inputs["padding_mask"])[:, :4],
            max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=9,
        )  # fmt: skip
    np.testing.assert_array_equal(out["token_ids"], expected)
    np.testing.assert_array_equal(
        out["padding_mask"], [[i >= pad for i in range(20)] for pad in before]
    )
    for row, pad, prompt in zip(out["token_ids"].tolist(), before, prompts, strict=True):
        (alone,) = small_lm.generate(packed([prompt], 20 - pad), stop_token_ids=None)["token_ids"]
        assert row[pad:] == alone.tolist()
    new = small_lm.generate(inputs, stop_token_ids=None, strip_prompt=True)
    np.testing.assert_array_equal(new["token_ids"][:, :16], expected[:, 4:])


def test_padding_on_the_left_with_a_sampling_loop_of_its_own(small_lm):
    class Loop(samplers.GreedySampler):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    _, inputs = padded_left([[5, 9, 11, 60], [7]], 12)
    small_lm.compile("greedy")
    expected = small_lm.generate(inputs, stop_token_ids=[3])
    small_lm.compile(Loop())
    found = small_lm.generate(inputs, stop_token_ids=[3])
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values)
