"""Fixture: a tiny checkpoint with the embedded model's tokenizer and random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpt2_wgpu.weights import presets

CONTEXT = 64
LAYERS, WIDTH = 2, 16


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The directory."""
    source, directory = presets.resolve("fairytales"), tmp_path_factory.mktemp("tiny")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(source / name, directory)
    config = json.loads((source / "config.json").read_text())
    config |= {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": 2}
    config |= {"n_ctx": CONTEXT, "n_positions": CONTEXT}
    (directory / "config.json").write_text(json.dumps(config))
    shapes = {
        "wte.weight": (config["vocab_size"], WIDTH),
        "wpe.weight": (CONTEXT, WIDTH),
        "ln_f.weight": (WIDTH,),
        "ln_f.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for part, shape in {
            "ln_1": (WIDTH,),
            "attn.c_attn": (WIDTH, 3 * WIDTH),
            "attn.c_proj": (WIDTH, WIDTH),
            "ln_2": (WIDTH,),
            "mlp.c_fc": (WIDTH, 4 * WIDTH),
            "mlp.c_proj": (4 * WIDTH, WIDTH),
        }.items():
            shapes[f"h.{layer}.{part}.weight"] = shape
            shapes[f"h.{layer}.{part}.bias"] = shape[-1:]
    random = np.random.default_rng(7)
    weights = {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()
    }
    save_file(weights, directory / "model.safetensors")
    return directory
