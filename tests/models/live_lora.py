"""Adapters that PEFT writes, merged at load, against PEFT's ``merge_and_unload``; `make parity`."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpt2_wgpu as gw
from tests.models import checkpoints

IDS = [[3, 9, 200, 41, 7, 7]]
SMALL = {"n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64, "vocab_size": 211}
ALL = ["c_attn", "c_proj", "c_fc"]
CASES = {
    "all": {"target_modules": ALL, "r": 4, "lora_alpha": 8},
    "rslora": {"target_modules": ["c_attn"], "r": 3, "lora_alpha": 5, "use_rslora": True},
    "patterns": {
        "target_modules": ALL,
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"c_attn": 6, r"h\.1\.mlp\.c_proj": 2},
        "alpha_pattern": {"c_fc": 3},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_merged_model_equals_pefts(case, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    model = checkpoints.make_model(**SMALL)
    checkpoints.save(model, tmp_path / "model")
    config = LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **CASES[case])
    tuned = get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = checkpoints.logits_of(tuned.merge_and_unload(), IDS)
    assert np.abs(expected - checkpoints.logits_of(model, IDS)).max() > 0.05
    with (
        gw.GPT2CausalLM.from_preset(
            tmp_path / "model", preprocessor=None, dtype="float32", adapter=tmp_path / "adapter"
        ) as lm,
        gw.tidy(),
    ):
        found = lm.score(IDS).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    print(case, np.abs(found - expected).max())
