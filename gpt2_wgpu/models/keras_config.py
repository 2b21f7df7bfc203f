"""Configurations of KerasHub's GPT-2: read under Hugging Face's names, and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.tokenizer_directory import END_OF_TEXT
from gpt2_wgpu.weights.keras_archive import BACKBONE, CAUSAL_LM, PREPROCESSOR

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


def backbone_object(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the serialised form of a ``GPT2Backbone`` with this ``get_config``.

    Keras computes with float32, as this package does.

    Raises:
        ConfigError: KerasHub's class has no such argument (a switch of `GPT2Config`).
    """
    known = {"name", "dtype", "dropout", *_SIZES}
    if unknown := sorted(config.keys() - known):
        raise _not_in_kerashub(BACKBONE, f"{unknown[0]} = {shown(config[unknown[0]])}")
    arguments = {**config, "trainable": True, "dtype": _policy("float32")}
    return _object("gpt2_backbone", BACKBONE, arguments)


def causal_lm_object(
    name: str, backbone: Mapping[str, Any], preprocessor: GPT2CausalLMPreprocessor | None
) -> dict[str, Any]:
    """Return the serialised form of a ``GPT2CausalLM`` of a `backbone_object`.

    Raises:
        ConfigError: KerasHub's preprocessor or tokenizer has no such setting.
    """
    arguments = {
        "backbone": dict(backbone),
        "preprocessor": None if preprocessor is None else _preprocessor_object(preprocessor),
        "name": name,
    }
    return _object("gpt2_causal_lm", CAUSAL_LM, arguments)


def _preprocessor_object(preprocessor: GPT2CausalLMPreprocessor) -> dict[str, Any]:
    config = preprocessor.get_config()
    if config["allowed_special"]:
        raise _not_in_kerashub(
            PREPROCESSOR, f"allowed_special = {shown(config['allowed_special'])}"
        )
    arguments = {
        "name": config["name"],
        "trainable": True,
        "dtype": _policy("float32"),
        "tokenizer": _tokenizer_object(config["tokenizer"]),
        "config_file": "preprocessor.json",
        **{name: config[name] for name in ("sequence_length", "add_start_token", "add_end_token")},
    }
    return _object("gpt2_causal_lm_preprocessor", PREPROCESSOR, arguments)


def _tokenizer_object(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the serialised form of a ``GPT2Tokenizer`` with this ``get_config``."""
    supported = {
        "start_token": config["start_token"] == END_OF_TEXT,
        "end_token": config["end_token"] == END_OF_TEXT,
        "add_prefix_space": config["add_prefix_space"] != "always",
        "special_tokens": set(config["special_tokens"]) <= {END_OF_TEXT},
        "added_tokens": set(config["added_tokens"]) <= {END_OF_TEXT},
        "token_rules": not config["token_rules"],
    }
    for name, is_supported in supported.items():
        if not is_supported:
            raise _not_in_kerashub("GPT2Tokenizer", f"{name} = {shown(config[name])}")
    arguments = {
        "name": config["name"],
        "trainable": True,
        "dtype": _policy(config["dtype"]),
        "config_file": "tokenizer.json",
        "sequence_length": config["sequence_length"],
        "add_prefix_space": config["add_prefix_space"],
        "unsplittable_tokens": list(dict.fromkeys([*config["unsplittable_tokens"], END_OF_TEXT])),
    }
    return _object("gpt2_tokenizer", "GPT2Tokenizer", arguments)


def _object(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": f"keras_hub.src.models.gpt2.{module}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


def _policy(dtype: str) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype},
        "registered_name": None,
    }


def _not_in_kerashub(class_name: str, what: str) -> ConfigError:
    return ConfigError(
        f"KerasHub's {class_name} has no {what}, so a .keras file cannot hold this model: use "
        "save_to_preset"
    )
