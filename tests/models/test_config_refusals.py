"""Rejected configurations, by key and value, and unusual valid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.models.config import GPT2Config

BASE: dict[str, Any] = GPT2Config().to_dict()


@pytest.mark.parametrize(
    "name",
    ["gelu_10", "mish", "relu2", "relu6", "leaky_relu", "prelu", "xielu", "GELU", "", None, 1, []],
)
def test_other_activations_are_refused_by_name(name: object) -> None:
    with pytest.raises(ConfigError, match=r"activation_function = .* not supported") as caught:
        GPT2Config.from_dict({**BASE, "activation_function": name})
    assert repr(name) in str(caught.value)
    assert "gelu_new" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gpt_neo"),
        ("model_type", "GPT2"),
        ("model_type", 2),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("quantization_config", {"bits": 4}),
        ("pruned_heads", {"0": [1]}),
    ],
)
def test_what_would_change_the_numbers_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} .*not supported") as caught:
        GPT2Config.from_dict({**BASE, key: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reorder_and_upcast_attn", True),
        ("add_cross_attention", False),
        ("is_decoder", True),
        ("quantization_config", None),
        ("pruned_heads", {}),
        ("resid_pdrop", 0.9),
        ("use_cache", False),
        ("torch_dtype", "float16"),
        ("n_ctx", 512),
        ("an_unknown_key", [1]),
    ],
)
def test_what_does_not_change_the_numbers_is_accepted(key: str, value: object) -> None:
    assert GPT2Config.from_dict({**BASE, key: value}) == GPT2Config()


@pytest.mark.parametrize(
    "key", ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"]
)
@pytest.mark.parametrize("value", [0, -1, True, 12.0, "12", [12], 1 << 40, float("nan"), 10**30])
def test_sizes_must_be_sane_integers(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} = .* must be an integer from 1 to") as caught:
        GPT2Config.from_dict({**BASE, key: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("key", ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head"])
def test_null_is_a_value_for_the_inner_size_only(key: str) -> None:
    assert GPT2Config.from_dict({**BASE, "n_inner": None}).intermediate_dim == 3072
    with pytest.raises(ConfigError, match=f"{key} = None"):
        GPT2Config.from_dict({**BASE, key: None})


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="n_embd = 768 is not a multiple of n_head = 7"):
        GPT2Config.from_dict({**BASE, "n_head": 7})


@pytest.mark.parametrize("value", [0, -1e-5, 2, float("nan"), float("inf"), True, "1e-5", None])
def test_epsilon_must_be_a_small_positive_number(value: object) -> None:
    with pytest.raises(ConfigError, match=r"layer_norm_epsilon = .* must be above 0"):
        GPT2Config.from_dict({**BASE, "layer_norm_epsilon": value})


@pytest.mark.parametrize(
    "key", ["scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"]
)
def test_switches_must_be_bools(key: str) -> None:
    for value in (True, False):
        assert getattr(GPT2Config.from_dict({**BASE, key: value}), key) is value
    for wrong in (1, 0, "true", None):
        with pytest.raises(ConfigError, match=f"{key} = {wrong!r} must be true or false"):
            GPT2Config.from_dict({**BASE, key: wrong})


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id"])
@pytest.mark.parametrize("value", [-1, True, 1.0, "5"])
def test_token_ids_must_be_ids(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} = .* must be a token id or null"):
        GPT2Config.from_dict({**BASE, key: value})
    with pytest.raises(ConfigError, match="eos_token_id"):
        GPT2Config.from_dict({**BASE, "eos_token_id": [5, value]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\); download it again"),
        (b" ", "not JSON"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "LFS pointer, not JSON; run 'git lfs pull'",
        ),
        (b"[]", "not a JSON object"),
        (b"<!DOCTYPE html>", "a web page, not JSON; check the address"),
        (b"\xff", "not UTF-8"),
        (b'{"model_type":"gpt2","n_layer":1,"n_layer":2}', "'n_layer' appears twice"),
        (b'{"model_type":"gpt2","layer_norm_epsilon":NaN}', "NaN is not JSON"),
        (b'{"model_type":' * 100_000, "nested too deeply"),
        (b'{"model_type":"llama"}', "model_type 'llama' is not supported"),
        (b'{"model_type":"gpt2","n_head":5}', "n_embd = 768 is not a multiple"),
    ],
)
def test_bad_file_is_named_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        GPT2Config.from_json_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read: No such file"):
        GPT2Config.from_json_file(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="this is not a regular file"):
        GPT2Config.from_json_file(tmp_path)
