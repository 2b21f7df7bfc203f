"""Checkpoints with contradictory parts or unusual weight layouts: the logits of transformers 5."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import WeightsError
from tests.models import checkpoints

pytestmark = pytest.mark.native("PyTorch")

IDS = [[1, 5, 9, 3]]
FILE = "model.safetensors"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LAYERS = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    model = checkpoints.make_model(
        n_embd=12, n_layer=2, n_head=3, n_inner=12, n_positions=9, vocab_size=21
    )
    return checkpoints.save(model, tmp_path_factory.mktemp("original"))


@pytest.fixture
def tensors(original):
    from safetensors.torch import load_file

    return load_file(original / FILE)


def written(original, directory, tensors, name=FILE):
    from safetensors.torch import save_file

    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_bytes((original / "config.json").read_bytes())
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, directory / name, {"format": "pt"})
    return directory


def write_index(directory, weight_map):
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / f"{FILE}.index.json").write_text(json.dumps(index))


def logits_and_warnings(directory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with gw.GPT2CausalLM.from_preset(directory, None, "float32") as lm:
            ones = np.ones_like(IDS)
            logits = lm({"token_ids": IDS, "padding_mask": ones}).numpy()
    return logits, [str(warning.message) for warning in caught]


def assert_as_transformers(directory, reference=None):
    """The same logits; → what was warned of."""
    from transformers import GPT2LMHeadModel

    logits, warned = logits_and_warnings(directory)
    model = GPT2LMHeadModel.from_pretrained(reference or directory)
    assert np.abs(logits - checkpoints.logits_of(model, IDS)).max() < 1e-5
    return warned


def test_a_head_that_differs_is_not_tied(device, original, tensors, tmp_path):
    import torch

    tensors["lm_head.weight"] = torch.randn(21, 12)
    directory = written(original, tmp_path / "source", tensors)
    (message,) = assert_as_transformers(directory)
    assert "lm_head.weight and transformer.wte.weight are stored with different values" in message
    for dtype in ("float32", "q8"):
        with pytest.warns(UserWarning, match="different values"):
            gw.convert(directory, tmp_path / dtype, dtype)
    assert_as_transformers(tmp_path / "float32")
    logits, warned = logits_and_warnings(tmp_path / "float32")
    assert len(warned) == 1
    with (
        pytest.warns(UserWarning, match="different values"),
        gw.GPT2CausalLM.from_preset(tmp_path / "q8", None) as lm,
    ):
        rounded = lm({"token_ids": IDS, "padding_mask": np.ones_like(IDS)}).numpy()
    assert 0 < np.abs(rounded - logits).max() < 0.2


def test_a_head_that_is_equal_stays_tied(device, original, tensors, tmp_path):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    directory = written(original, tmp_path / "source", tensors)
    assert assert_as_transformers(directory) == []
    with gw.GPT2CausalLM.from_preset(directory, None) as lm:
        assert lm.backbone.weights.lm_head is lm.backbone.weights.wte
        assert lm.backbone.config.tie_word_embeddings


def test_a_head_of_another_dtype_is_the_head(device, original, tensors, tmp_path):
    import torch

    tensors["lm_head.weight"] = torch.randn(21, 12).half()
    (message,) = assert_as_transformers(written(original, tmp_path / "source", tensors))
    assert "different dtypes (F16 and F32)" in message


def test_a_head_alone_is_the_embedding_too(device, original, tensors, tmp_path):
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    assert assert_as_transformers(written(original, tmp_path / "source", tensors)) == []


def test_a_head_of_another_size_is_refused(device, original, tensors, tmp_path):
    import torch

    tensors["lm_head.weight"] = torch.randn(22, 12)
    directory = written(original, tmp_path / "source", tensors)
    message = r"lm_head\.weight is \[22, 12\] instead of \[21, 12\]"
    with (
        pytest.warns(UserWarning, match="different shapes"),
        pytest.raises(WeightsError, match=message),
    ):
        gw.GPT2CausalLM.from_preset(directory, None)


@pytest.mark.parametrize("named", [FIRST, SECOND])
def test_stale_copies_in_shards(device, original, tensors, tmp_path, named):
    import torch

    stale = {"transformer.wpe.weight": torch.randn(9, 12)}
    directory = written(original, tmp_path / "source", tensors, FIRST)
    written(original, directory, stale | {"extra": torch.zeros(1)}, SECOND)
    weight_map = dict.fromkeys(tensors, FIRST) | {"transformer.wpe.weight": named, "extra": SECOND}
    (directory / f"{FILE}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    warned = assert_as_transformers(directory)
    assert any(re.search(f"wpe.weight in both {FIRST} and {SECOND}", text) for text in warned)


def test_a_file_beside_an_index(device, original, tensors, tmp_path):
    import torch

    directory = written(original, tmp_path / "source", tensors)
    other = {name: torch.zeros_like(value) for name, value in tensors.items()}
    written(original, directory, other, FIRST)
    weight_map = dict.fromkeys(tensors, FIRST)
    (directory / f"{FILE}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (message,) = assert_as_transformers(directory)
    assert f"{FILE} is read, and {FILE}.index.json beside it" in message


def test_names_with_and_without_prefix(device, original, tensors, tmp_path):
    import torch

    both = {"wpe.weight": torch.randn(9, 12), **tensors}
    (message,) = assert_as_transformers(written(original, tmp_path / "source", both))
    assert "'transformer.wpe.weight' is read, and 'wpe.weight'" in message


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_forward_module.model."])
@pytest.mark.parametrize("dtype", ["float32", "float16", "q8"])
def test_nanogpt(device, original, tensors, tmp_path, prefix, dtype):
    """Matrices of nn.Linear, a compiled model's names, loaded and converted."""
    changed = {
        prefix + name: value.T if name.endswith(LAYERS) else value
        for name, value in tensors.items()
    }
    directory = written(original, tmp_path / "source", changed)
    assert assert_as_transformers(directory, original) == []
    gw.convert(directory, tmp_path / "new", dtype)
    gw.convert(original, tmp_path / "usual", dtype)
    assert (tmp_path / "new" / FILE).read_bytes() == (tmp_path / "usual" / FILE).read_bytes()


def test_a_model_without_biases(device, original, tensors, tmp_path):
    """nanoGPT's bias=False: transformers takes zeros, too."""
    without = {name: value for name, value in tensors.items() if not name.endswith(".bias")}
    directory = written(original, tmp_path / "source", without)
    assert assert_as_transformers(directory) == []
    gw.convert(directory, tmp_path / "new", "float32")
    assert_as_transformers(tmp_path / "new", directory)
