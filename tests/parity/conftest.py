"""The embedded model in f32, and a model whose logits are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpt2_wgpu as gw
from tests import tiny_checkpoints
from tests.parity import cases


@pytest.fixture(scope="session")
def lm(device: gw.Device) -> Iterator[gw.GPT2CausalLM]:
    """The embedded model."""
    with gw.GPT2CausalLM.from_preset(cases.MODEL, dtype="float32", device=device) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def chooser(device: gw.Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[gw.CausalLM]:
    """A model whose logits are ``cases.LOGITS`` at each position, without text."""
    directory: Path = tmp_path_factory.mktemp("chooser")
    tiny_checkpoints.write(directory, len(cases.LOGITS))
    tensors = load_file(directory / "model.safetensors")
    width = tensors["wte.weight"].shape[1]  # ln_f gives ones: a row's sum is the token's logit
    tensors["wte.weight"] = np.repeat(np.array(cases.LOGITS, "f4")[:, None] / width, width, 1)
    save_file(tensors, directory / "model.safetensors")
    with gw.GPT2CausalLM.from_preset(directory, None, "float32", device) as loaded:
        yield loaded
