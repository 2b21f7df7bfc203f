"""Configuration and attributes of a backbone, with KerasHub's names."""

from __future__ import annotations

import asyncio
import json

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError

SIZES = {
    "vocabulary_size": 50,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 12,
    "intermediate_dim": 20,
    "max_sequence_length": 9,
}


def values(backbone):
    with gw.tidy():
        return backbone({"token_ids": [[1, 2, 3]]}).tolist()


@pytest.mark.parametrize(
    "more",
    [
        {"name": "small", "dropout": 0.2, "dtype": "float16"},
        {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "scale_attn_weights": False},
    ],
)
def test_a_backbone_is_made_again_from_its_configuration(device, no_leak, more):
    backbone = gw.GPT2Backbone(**SIZES, **more, initializer_range=0.5)
    config = json.loads(json.dumps(backbone.get_config()))
    again = gw.GPT2Backbone.from_config(config | {"initializer_range": 0.5})
    plain = gw.GPT2Backbone(**SIZES, initializer_range=0.5)
    assert again.get_config() == config
    assert config.items() >= (SIZES | more).items()
    assert values(again) == values(backbone) != values(plain)
    for each in (backbone, again, plain):
        each.dispose()


def test_a_configuration_of_keras_is_accepted(device):
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
    config = {"name": "gpt2_backbone", "trainable": True, "dtype": policy, "dropout": 0.1} | SIZES
    backbone = gw.GPT2Backbone.from_config(config)
    assert {name: getattr(backbone, name) for name in SIZES} == SIZES
    assert (backbone.name, backbone.dtype) == ("gpt2_backbone", "float32")
    backbone.dispose()


def test_an_unknown_argument_is_named(device):
    with pytest.raises(InvalidArgumentError, match="takes no argument 'layers'"):
        gw.GPT2Backbone(**SIZES, layers=3)


@pytest.mark.native("PyTorch")
def test_a_backbone_loads_asynchronously(device, small, small_lm, no_leak):
    steps = []
    backbone = asyncio.run(
        gw.GPT2Backbone.from_preset_async(
            small[1], "float32", on_progress=lambda done, total: steps.append((done, total))
        )
    )
    assert values(backbone) == values(small_lm.backbone)
    assert steps[-1][0] == steps[-1][1] > 0
    backbone.dispose()
