"""config.json: read as in transformers, and rejected if results would differ."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_wgpu.activation_names import ACTIVATION_KINDS
from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.models.config import GPT2Config

pytestmark = pytest.mark.native("Hypothesis")

# openai-community/gpt2's own file
BASE: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
SMALL = GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2)


def test_the_file_of_gpt2_is_the_default() -> None:
    assert GPT2Config.from_dict(BASE) == GPT2Config()
    assert GPT2Config.from_dict({"model_type": "gpt2"}) == GPT2Config()


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd", "count"),
    [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
        (6, 12, 768, 81_912_576),
    ],
)
def test_parameter_counts_of_the_published_models(
    n_layer: int, n_head: int, n_embd: int, count: int
) -> None:
    config = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    assert config.parameter_count() == count
    assert config.head_dim == 64
    assert len(config.expected_tensors()) == 4 + 12 * n_layer


def test_names_and_shapes_of_the_tensors() -> None:
    tensors = replace(SMALL, n_inner=5).expected_tensors()
    assert list(tensors)[:4] == ["wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias"]
    assert {
        name.removeprefix("h.1."): shape for name, shape in tensors.items() if "h.1." in name
    } == {
        "ln_1.weight": (8,),
        "ln_1.bias": (8,),
        "attn.c_attn.weight": (8, 24),
        "attn.c_attn.bias": (24,),
        "attn.c_proj.weight": (8, 8),
        "attn.c_proj.bias": (8,),
        "ln_2.weight": (8,),
        "ln_2.bias": (8,),
        "mlp.c_fc.weight": (8, 5),
        "mlp.c_fc.bias": (5,),
        "mlp.c_proj.weight": (5, 8),
        "mlp.c_proj.bias": (8,),
    }
    assert tensors["wte.weight"] == (11, 8)
    assert tensors["wpe.weight"] == (6, 8)
    assert list(tensors)[-2:] == ["ln_f.weight", "ln_f.bias"]


def test_own_head_is_one_more_tensor() -> None:
    untied = replace(SMALL, tie_word_embeddings=False)
    assert set(untied.expected_tensors()) - set(SMALL.expected_tensors()) == {"lm_head.weight"}
    assert untied.expected_tensors()["lm_head.weight"] == (11, 8)
    assert untied.parameter_count() == SMALL.parameter_count() + 88


def test_keras_hub_names() -> None:
    config = replace(SMALL, n_inner=5)
    assert (config.vocabulary_size, config.num_layers, config.num_heads) == (11, 2, 2)
    assert (config.hidden_dim, config.intermediate_dim, config.max_sequence_length) == (8, 5, 6)
    assert config.head_dim == 4
    assert SMALL.intermediate_dim == 32
    with pytest.raises(FrozenInstanceError):
        config.n_embd = 16  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        (
            "gelu_tanh",
            lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        ("gelu_erf", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("quick_gelu", lambda x: x / (1 + math.exp(-1.702 * x))),
        ("relu", lambda x: max(x, 0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("linear", lambda x: x),
    ],
)
def test_every_activation_is_what_transformers_means(name: str, formula: Any) -> None:
    """The kinds, against transformers' own functions under each of their names."""
    import torch
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 97, dtype=torch.float64)
    expected = [formula(value) for value in x.tolist()]
    aliases = [alias for alias, kind in ACTIVATION_KINDS.items() if kind == name]
    assert aliases
    for alias in aliases:
        config = replace(SMALL, activation_function=alias)
        assert config.activation_kind == name
        assert ACT2FN[alias](x).tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("value", "ids"), [(5, (5,)), (None, ()), ([5, 7], (5, 7)), (0, (0,)), (99_999, (99_999,))]
)
def test_end_tokens(value: object, ids: tuple[int, ...]) -> None:
    config = GPT2Config.from_dict({**BASE, "eos_token_id": value})
    assert config.eos_token_ids == ids
    assert GPT2Config.from_dict(config.to_dict()) == config


def test_other_names_of_the_sizes() -> None:
    config = GPT2Config.from_dict(
        {
            "model_type": "gpt2",
            "hidden_size": 64,
            "max_position_embeddings": 32,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
        }
    )
    assert (config.n_embd, config.n_positions, config.n_head, config.n_layer) == (64, 32, 4, 3)
    assert GPT2Config.from_dict({**BASE, "hidden_size": 768}) == GPT2Config()
    with pytest.raises(ConfigError, match="n_embd = 768 and hidden_size = 64 contradict"):
        GPT2Config.from_dict({**BASE, "hidden_size": 64})


@pytest.mark.parametrize("missing", ["n_embd", "n_layer", "n_head"])
def test_model_type_may_be_missing_where_the_sizes_are_gpt2s(missing: str) -> None:
    values = {key: value for key, value in BASE.items() if key != "model_type"}
    assert GPT2Config.from_dict(values) == GPT2Config()
    del values[missing]
    for incomplete in (values, {}):
        with pytest.raises(ConfigError, match="key 'model_type' is missing"):
            GPT2Config.from_dict(incomplete)


@given(
    st.builds(
        GPT2Config,
        vocab_size=st.integers(1, 1 << 20),
        n_embd=st.integers(1, 64).map(lambda n: n * 12),
        n_head=st.sampled_from([1, 2, 3, 4, 6, 12]),
        n_layer=st.integers(1, 4),
        n_inner=st.none() | st.integers(1, 1 << 12),
        activation_function=st.sampled_from(sorted(ACTIVATION_KINDS)),
        layer_norm_epsilon=st.floats(1e-12, 1),
        scale_attn_weights=st.booleans(),
        scale_attn_by_inverse_layer_idx=st.booleans(),
        tie_word_embeddings=st.booleans(),
        bos_token_id=st.none() | st.integers(0, 1 << 20),
        eos_token_id=st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9)).map(tuple),
    )
)
def test_round_trip_through_json(config: GPT2Config) -> None:
    assert GPT2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    sizes = [math.prod(shape) for shape in config.expected_tensors().values()]
    assert config.parameter_count() == sum(sizes)


def test_same_as_transformers() -> None:
    """Absent keys and the other names come out as in transformers' own class."""
    import transformers

    for values in (
        {},
        {"hidden_size": 24, "n_inner": 7},
        {"num_hidden_layers": 2, "n_head": 6},
        BASE,
    ):
        theirs = transformers.GPT2Config.from_dict(dict(values))
        ours = GPT2Config.from_dict({"model_type": "gpt2", **values})
        for key in ours.to_dict():
            assert getattr(ours, key, "gpt2") == getattr(theirs, key), key


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**BASE, "n_layer": 3}))
    assert GPT2Config.from_json_file(path).n_layer == 3
    assert GPT2Config.from_json_file(str(path)).n_layer == 3
