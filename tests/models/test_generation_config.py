"""Rules and warnings of generation_config.json, against transformers on the same directory."""

from __future__ import annotations

import json
import shutil

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError
from gpt2_wgpu.nn import TokenRules
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPT = [11, 5, 100, 7]


@pytest.fixture
def load(small, tmp_path):
    """Load the small model with settings in its generation_config.json -> (model, directory)."""
    loaded = []

    def load(**settings):
        directory = tmp_path / f"model{len(loaded)}"
        shutil.copytree(small[1], directory)
        (directory / "generation_config.json").write_text(json.dumps(settings))
        lm = gw.GPT2CausalLM.from_preset(directory, preprocessor=None, dtype="float32")
        loaded.append(lm)
        lm.compile("greedy")
        return lm, directory

    yield load
    for lm in loaded:
        lm.dispose()


def text(lm, length=24):
    out = lm.generate(packed([PROMPT], length), stop_token_ids=None)
    return out["token_ids"][0].tolist()


@without_gradients
def reference(directory):
    import torch
    from transformers import GPT2LMHeadModel

    ids = torch.tensor([PROMPT])
    model = GPT2LMHeadModel.from_pretrained(directory)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=[], max_length=24,
        pad_token_id=210,
    )  # fmt: skip
    return out[0].tolist()


def test_rules_are_obeyed_and_arguments_win(small_lm, load):
    small_lm.compile("greedy")
    plain = text(small_lm)
    settings = {"suppress_tokens": plain[6:8], "no_repeat_ngram_size": 1, "forced_eos_token_id": 9}
    lm, directory = load(**settings)
    expected = reference(directory)
    assert text(lm) == expected != plain
    assert lm.token_rules == TokenRules(
        suppress_tokens=tuple(plain[6:8]), no_repeat_ngram_size=1, forced_eos_token_id=(9,)
    )
    lm.compile(samplers.Greedy(forced_eos_token_id=8))
    assert text(lm)[-1] == 8
    for sampler, settings in ((samplers.BeamSampler(2), {}), ("greedy", {"lookup": 2})):
        lm.compile(sampler, prompt_lookup_num_tokens=settings.get("lookup", 0))
        with pytest.raises(InvalidArgumentError, match="rules of generation_config"):
            text(lm)
    lm.token_rules = TokenRules()
    lm.compile("greedy")
    assert text(lm) == plain


def test_settings_that_are_not_obeyed_are_named_once(load):
    with pytest.warns(UserWarning, match=r"sets repetition_penalty, num_beams, which") as caught:
        load(
            do_sample=True, top_k=9, repetition_penalty=1.2, num_beams=4, use_cache=True, top_p=None
        )
    assert len(caught) == 1


def test_a_wrong_rule_names_the_file(load):
    with pytest.raises(ConfigError, match=r"generation_config\.json: min_length must be .*'x'"):
        load(min_length="x")
