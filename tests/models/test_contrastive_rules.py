"""Token rules and penalties with contrastive search, against transformers' logits processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.nn import TokenRules
from gpt2_wgpu.samplers import ContrastiveSampler
from tests.models.test_contrastive_search import PROMPTS, generated, reference

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

STOPS = [5, 40]
RULES = [
    {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
    {"suppress_tokens": [*range(60, 199)], "begin_suppress_tokens": [*range(60)]},
    {"min_length": 14, "no_repeat_ngram_size": 1, "logit_bias": {5: 9.0, 40: 9.0}},
    {"min_new_tokens": 4, "logit_bias": {5: 90.0}},
    {"forced_bos_token_id": 33, "forced_eos_token_id": 9},
    {"sequence_bias": [[[3], -50.0], [[150], 3.0], [[150, 3], 60.0]]},
    {"bad_words_ids": [[token] for token in range(20, 200)] + [[3, 7], [8, 8, 8]]},
    {"presence_penalty": 2.0, "frequency_penalty": 0.7},
]


def processor(rules, prompt, length):
    """Function of ids and logits of one row to the logits that transformers would use."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=211))
    rules = dict(rules)
    penalties = [rules.pop(f"{name}_penalty", 0.0) for name in ("presence", "frequency")]
    if "logit_bias" in rules:
        rules["sequence_bias"] = [[[token], bias] for token, bias in rules["logit_bias"].items()]
        del rules["logit_bias"]
    config = GenerationConfig(**rules, max_length=length, eos_token_id=STOPS, pad_token_id=0)
    model._prepare_special_tokens(config, True, device="cpu")
    found = model._get_logits_processor(config, len(prompt))

    def process(ids, logits):
        counts = np.bincount(ids[len(prompt) :], minlength=logits.size)
        logits = logits - penalties[0] * (counts > 0) - penalties[1] * counts
        return found(torch.tensor([ids]), torch.tensor(logits[None]).float())[0].numpy()

    return process


@pytest.mark.parametrize("temperature", [0.5, 1.5])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
def test_ids_equal_the_reference(small, small_lm, rules, temperature):
    small_lm.compile(ContrastiveSampler(4, 0.5, temperature=temperature))
    plain = generated(small_lm, PROMPTS, 20, STOPS)
    small_lm.compile(ContrastiveSampler(4, 0.5, temperature=temperature, **rules))
    found = generated(small_lm, PROMPTS, 20, STOPS)
    assert found != plain
    for prompt, row in zip(PROMPTS, found, strict=True):
        process = processor(rules, prompt, 20)
        expected, lead = reference(small[0], prompt, 20, 4, 0.5, temperature, STOPS, process)
        assert lead > 1e-5, lead
        assert row == expected
        assert generated(small_lm, [prompt], 20, STOPS) == [row]


def test_rules_of_the_checkpoint(small_lm, monkeypatch):
    """They are obeyed, and those of the sampler win."""
    small_lm.compile(ContrastiveSampler(3, no_repeat_ngram_size=1))
    expected = generated(small_lm, PROMPTS, 20)
    small_lm.compile(ContrastiveSampler(3))
    plain = generated(small_lm, PROMPTS, 20)
    assert plain != expected
    monkeypatch.setattr(small_lm, "token_rules", TokenRules(no_repeat_ngram_size=1))
    assert generated(small_lm, PROMPTS, 20) == expected
    small_lm.compile(ContrastiveSampler(3, no_repeat_ngram_size=0))
    assert generated(small_lm, PROMPTS, 20) == plain


def test_only_excluded_tokens_raise(small_lm):
    """Candidates that are excluded are not chosen, even if their score would be the best."""
    few = ContrastiveSampler(5, 1.0, suppress_tokens=[*range(4, 211)])
    small_lm.compile(few)
    assert {*generated(small_lm, [[11, 5]], 30)[0][2:]} <= {0, 1, 2, 3}
    few.no_repeat_ngram_size = 1
    with pytest.raises(NumericalError, match="row 1 is excluded: by suppress_tokens and no_repeat"):
        generated(small_lm, [[11, 5], [11, 0, 1, 2, 3]], 9)


def test_what_cannot_be_combined(small_lm):
    for name, value in (("min_p", 0.1), ("typical_p", 0.9)):
        with pytest.raises(InvalidArgumentError, match="contrastive search does not sample"):
            ContrastiveSampler(2, **{name: value})
    with pytest.raises(InvalidArgumentError, match="use generate"):
        ContrastiveSampler(2, repetition_penalty=1.2)(None, [[1]], hidden_states=[[[1.0]]])

    class Own(ContrastiveSampler):
        async def call_async(self, next, prompt, *args, **kwargs):
            return prompt

    with pytest.raises(InvalidArgumentError, match="Own replaces the sampling loop"):
        small_lm.compile(Own(2, repetition_penalty=1.2))
