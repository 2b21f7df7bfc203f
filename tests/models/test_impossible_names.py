"""Invalid file names: a clear error in every function that takes a name."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError, PresetError, WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.weights.checkpoint import Checkpoint
from gpt2_wgpu.weights.safetensors import SafetensorsFile

NAMES = ["a\0b", "a/b\0", "./a\0", "~\0/x", "\ud800", "a/\udfff", "hf://a/\0", "hf://a/b@\ud800"]


@pytest.mark.parametrize("name", NAMES, ids=map(str, range(len(NAMES))))
def test_a_model_cannot_be_called_so(name: str) -> None:
    with pytest.raises(PresetError) as caught:
        gw.GPT2CausalLM.from_preset(name)
    str(caught.value).encode()  # can be printed
    with pytest.raises(PresetError):
        gw.GPT2CausalLM.from_preset(Path(name))
    with pytest.raises(PresetError):
        gw.convert(name, "x", "q8")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_a_file_cannot_be_called_so(name: str) -> None:
    with pytest.raises(ConfigError):
        GPT2Config.from_json_file(name)
    for opens in (Checkpoint.open, SafetensorsFile):
        with pytest.raises(WeightsError, match="is not a valid"):
            opens(name)
    with pytest.raises(InvalidArgumentError, match="is not a valid directory name"):
        gw.convert("fairytales", name, "q8")
