"""Configuration of a KerasHub preset: its ``config.json`` under Hugging Face's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.shown import shown

_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "hidden_dim": "n_embd",
    "intermediate_dim": "n_inner",
    "max_sequence_length": "n_positions",
}


def is_keras_config(values: Mapping[str, object]) -> bool:
    """Return whether a ``config.json`` is a serialised Keras object."""
    return "model_type" not in values and ("registered_name" in values or "class_name" in values)


def from_keras(values: Mapping[str, object]) -> dict[str, Any]:
    """Return Hugging Face's form of the config of KerasHub's GPT2Backbone.

    Raises:
        ConfigError: it is the config of another class, or a size is missing.
    """
    config = values.get("config")
    if values.get("class_name") != "GPT2Backbone" or not isinstance(config, Mapping):
        raise ConfigError(
            f"this is the config of a {shown(values.get('class_name'))} of Keras; only KerasHub's "
            "GPT2Backbone is supported"
        )
    if missing := [name for name in _SIZES if name not in config]:
        raise ConfigError(f"KerasHub's GPT2Backbone lacks {missing[0]}")
    # The tokenizer has the start and end token.
    tokens = {"bos_token_id": None, "eos_token_id": None}
    return {"model_type": "gpt2", **{_SIZES[name]: config[name] for name in _SIZES}, **tokens}
