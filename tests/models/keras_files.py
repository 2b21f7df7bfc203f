"""Weights, and ``.keras`` files, in the layout of Keras 3.15 and KerasHub 0.32."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from gpt2_wgpu.models import GPT2Config
from tests.memory import tiny

P = TypeVar("P", Path, io.BytesIO)

LAYERS, HEADS, WIDTH, INNER = 2, 3, 12, 20  # heads of 4: padded on the GPU
SIZES = {
    "vocabulary_size": 257,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "hidden_dim": WIDTH,
    "intermediate_dim": INNER,
    "max_sequence_length": 8,
}


def tensors() -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names."""
    config = GPT2Config.from_dict({"class_name": "GPT2Backbone", "config": SIZES})
    random = np.random.default_rng(7)
    shapes = config.expected_tensors()
    return {name: random.normal(0, 0.3, shape).astype("f4") for name, shape in shapes.items()}


def arrays_of_keras(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same weights as KerasHub stores them: query, key, value apart, and an axis of heads."""
    size = WIDTH // HEADS
    found: dict[str, Any] = {}

    def put(
        path: str, name: str, shape: tuple[int, ...] = (-1,), columns: slice = slice(None)
    ) -> None:
        for index, kind in enumerate(("weight", "bias")):
            array = weights[f"{name}.{kind}"][..., columns]
            lone = () if kind == "bias" or len(array.shape) < 2 else (WIDTH,)
            found[f"layers/{path}/vars/{index}"] = array.reshape(*lone, *shape)

    found["layers/reversible_embedding/vars/0"] = weights["wte.weight"]
    found["layers/position_embedding/vars/0"] = weights["wpe.weight"]
    put("layer_normalization", "ln_f")
    for i in range(LAYERS):
        block = "transformer_decoder" + (f"_{i}" if i else "")
        attention = f"{block}/_self_attention_layer"
        put(f"{block}/_self_attention_layer_norm", f"h.{i}.ln_1")
        put(f"{block}/_feedforward_layer_norm", f"h.{i}.ln_2")
        for part, name in enumerate(("query", "key", "value")):
            columns = slice(part * WIDTH, (part + 1) * WIDTH)
            put(f"{attention}/{name}_dense", f"h.{i}.attn.c_attn", (HEADS, size), columns)
        out = f"layers/{attention}/output_dense/vars"
        found[f"{out}/0"] = weights[f"h.{i}.attn.c_proj.weight"].reshape(HEADS, size, WIDTH)
        found[f"{out}/1"] = weights[f"h.{i}.attn.c_proj.bias"]
        for part_name, name in (("intermediate", "c_fc"), ("output", "c_proj")):
            dense = f"layers/{block}/_feedforward_{part_name}_dense/vars"
            found[f"{dense}/0"] = weights[f"h.{i}.mlp.{name}.weight"]
            found[f"{dense}/1"] = weights[f"h.{i}.mlp.{name}.bias"]
    return found


def serialised(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """An object in the form of Keras' ``serialize_keras_object``."""
    return {
        "module": f"keras_hub.src.models.gpt2.{class_name.lower()}",
        "class_name": class_name,
        "config": {"trainable": True, **config},
        "registered_name": f"keras_hub>{class_name}",
    }


def policy(name: str) -> dict[str, Any]:
    """A serialised dtype policy."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}}


def backbone_config(dtype: str = "float32") -> dict[str, Any]:
    config = {**SIZES, "name": "storyteller", "dropout": 0.2, "dtype": policy(dtype)}
    return serialised("GPT2Backbone", config)


def causal_lm_config(dtype: str = "float32", *, text: bool = True) -> dict[str, Any]:
    tokenizer = {
        "name": "gpt2_tokenizer",
        "dtype": policy("int32"),
        "config_file": "tokenizer.json",
        "sequence_length": None,
        "add_prefix_space": False,
        "unsplittable_tokens": ["<|endoftext|>"],
    }
    preprocessor = {
        "name": "gpt2_causal_lm_preprocessor",
        "dtype": policy("float32"),
        "tokenizer": serialised("GPT2Tokenizer", tokenizer),
        "config_file": "preprocessor.json",
        "sequence_length": 6,
        "add_start_token": True,
        "add_end_token": True,
    }
    config = {
        "backbone": backbone_config(dtype),
        "preprocessor": serialised("GPT2CausalLMPreprocessor", preprocessor) if text else None,
        "name": "bard",
    }
    return serialised("GPT2CausalLM", config)


def weights_file(arrays: dict[str, Any], prefix: str) -> bytes:
    """``model.weights.h5``."""
    file = io.BytesIO()
    with h5py.File(file, "w") as stored:
        for path, array in arrays.items():
            dataset = stored.create_dataset(prefix + path, data=array)
            if array.dtype.kind == "V":
                dataset.attrs["dtype"] = "bfloat16"
    return file.getvalue()


def entries(config: dict[str, Any], arrays: dict[str, Any] | None = None) -> dict[str, bytes]:
    """Name → content of the entries of a ``.keras`` file."""
    prefix = "layers/gpt2_backbone/" if config["class_name"] == "GPT2CausalLM" else ""
    stored = arrays_of_keras(tensors()) if arrays is None else arrays
    found = {
        "metadata.json": b'{"keras_version": "3.15.1", "date_saved": "2026-01-02@03:04:05"}',
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": weights_file(stored, prefix),
    }
    if config["config"].get("preprocessor"):
        assets = "assets/preprocessor/tokenizer"
        vocabulary = tiny.tokenizer().get_vocabulary()
        found[f"{assets}/vocabulary.json"] = json.dumps(vocabulary).encode()
        found[f"{assets}/merges.txt"] = b""
    return found


def write(place: P, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> P:
    """Write a ``.keras`` file of these entries to a path or an open file."""
    with zipfile.ZipFile(place, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return place
