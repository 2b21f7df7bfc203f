"""Directories of other formats: the message names the format and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_wgpu.errors import ConfigError, PresetError, WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.other_formats import tokenizer_instead
from gpt2_wgpu.weights.checkpoint import Checkpoint
from gpt2_wgpu.weights.presets import resolve

WEIGHTS = {
    "adapter_model.safetensors": "a LoRA adapter and no model: load its base model",
    "adapter_model.bin": "a LoRA adapter",
    "model.weights.h5": "a KerasHub preset",
    "gpt2-q4_k_m.gguf": r"a GGUF file of llama\.cpp: use the original checkpoint",
    "onnx/decoder_model_merged.onnx": "onnx is an ONNX export",
    "model.onnx": "an ONNX export",
    "tf_model.h5": "a TensorFlow model",
    "model.ckpt.index": "a TensorFlow model",
    "64.tflite": "a TensorFlow model",
    "flax_model.msgpack": "a Flax model",
    "weights.npz": "NumPy arrays",
    "pytorch_model.bin": r"a PyTorch pickle, which can run code .*save_pretrained\(\)",
    "pytorch_model-00001-of-00002.bin": "a PyTorch pickle",
    "ckpt.pt": "a PyTorch pickle",
    "consolidated.00.pth": "a PyTorch pickle",
    "last.ckpt": "a PyTorch pickle",
}


def put(directory: Path, name: str) -> None:
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(b"x")


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_another_format(name: str, tmp_path: Path) -> None:
    put(tmp_path, name)
    with pytest.raises(WeightsError, match=f"there is no model.safetensors, but .*{WEIGHTS[name]}"):
        Checkpoint.open(tmp_path)
    with pytest.raises(PresetError, match=f"has no config.json: .*{WEIGHTS[name]}"):
        resolve(tmp_path)


@pytest.mark.parametrize("name", ["a.gguf", "ckpt.pt", "weights.npz", "model.onnx"])
def test_a_file_instead_of_a_directory(name: str, tmp_path: Path) -> None:
    put(tmp_path, name)
    with pytest.raises(PresetError, match=f"is a file: {name} is .*(use|load) "):
        resolve(tmp_path / name)


def test_an_unknown_file_or_directory(tmp_path: Path) -> None:
    put(tmp_path, "README.md")
    with pytest.raises(PresetError, match="so it holds no model"):
        resolve(tmp_path)
    with pytest.raises(PresetError, match="is a file; pass the directory"):
        resolve(tmp_path / "README.md")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("GPT2Backbone", "GPT2Backbone lacks num_layers"),
        ("BertBackbone", "'BertBackbone' of Keras"),
    ],
)
def test_the_config_of_another_kerashub_preset(kind: str, says: str) -> None:
    values = {
        "module": "keras_hub.src.models",
        "class_name": kind,
        "config": {"vocabulary_size": 50257},
        "registered_name": f"keras_hub>{kind}",
    }
    with pytest.raises(ConfigError, match=says):
        GPT2Config.from_dict(values)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vocab.txt", "BertTokenizer"),
        ("tokenizer.model", "SentencePiece"),
        ("encoder.json", "OpenAI's own format"),
    ],
)
def test_other_tokenizers(name: str, kind: str) -> None:
    assert kind in tokenizer_instead(["config.json", name])
    assert tokenizer_instead(["config.json"]) == ""
