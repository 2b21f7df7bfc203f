"""LoRA adapters merged at load, against the formula in NumPy on transformers' model."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, PresetError, WeightsError
from tests.models import checkpoints
from tests.weights.building import valid_file

pytestmark = [pytest.mark.native("PyTorch"), pytest.mark.usefixtures("no_leak")]

MODULES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
IDS = [[3, 9, 200, 41, 7, 7]]


def write_adapter(directory, model, modules, seed=0, dtype=np.float32, **config):
    """An adapter as PEFT writes it; returns module → (A, B)."""
    directory.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "fan_in_fan_out": True, **config}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    random, entries, pairs = np.random.default_rng(seed), {}, {}
    for name in modules:
        rank = next((r for key, r in config.get("rank_pattern", {}).items() if key in name), 4)
        in_features, out_features = model.get_submodule(f"transformer.{name}").weight.shape
        pair = (
            random.normal(0, 0.1, (rank, in_features)),
            random.normal(0, 0.1, (out_features, rank)),
        )
        pairs[name] = [matrix.astype(dtype) for matrix in pair]
        for letter, matrix in zip("AB", pairs[name], strict=True):
            kind = "F16" if dtype == np.float16 else "F32"
            key = f"base_model.model.transformer.{name}.lora_{letter}.weight"
            entries[key] = (kind, list(matrix.shape), matrix.tobytes())
    (directory / "adapter_model.safetensors").write_bytes(valid_file(entries))
    return pairs


def merged_logits(model, *changes):
    """Logits of transformers' model with scale * B A added to its matrices."""
    import torch

    model = copy.deepcopy(model)
    with torch.no_grad():
        for pairs, scale_of in changes:
            for name, (a, b) in pairs.items():
                delta = scale_of(name) * (b.astype(np.float64) @ a.astype(np.float64))
                weight = model.get_submodule(f"transformer.{name}").weight
                weight += torch.tensor(delta.T.astype(np.float32))
    return checkpoints.logits_of(model, IDS)


def logits(directory, **arguments):
    lm = gw.GPT2CausalLM.from_preset(
        directory, preprocessor=None, **{"dtype": "float32", **arguments}
    )
    with lm, gw.tidy():
        return lm.score(IDS).numpy()


ALL = [f"h.{layer}.{module}" for layer in range(3) for module in MODULES]
CASES = {
    "all modules": (ALL, {}, lambda name: 2.0),
    "one module, float16": (["h.1.mlp.c_fc"], {"dtype": np.float16}, lambda name: 2.0),
    "rslora": (ALL, {"use_rslora": True, "lora_alpha": 3}, lambda name: 1.5),
    "patterns": (
        ALL,
        {"rank_pattern": {"c_attn": 6}, "alpha_pattern": {r"h\.2\.mlp\.c_proj": 1}},
        lambda name: 8 / 6 if "c_attn" in name else 0.25 if name == "h.2.mlp.c_proj" else 2.0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_model_equals_the_formula(small, tmp_path, case):
    modules, config, scale_of = CASES[case]
    pairs = write_adapter(tmp_path / "adapter", small[0], modules, **config)
    expected = merged_logits(small[0], (pairs, scale_of))
    found = logits(small[1], adapter=tmp_path / "adapter")
    assert np.abs(expected - checkpoints.logits_of(small[0], IDS)).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-4)


class Blob:
    """What the package asks of a browser's ``Blob``."""

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def slice(self, begin, end):
        return Blob(self.data[begin:end])

    async def arrayBuffer(self):
        return SimpleNamespace(to_bytes=lambda: self.data)


def test_blobs_and_a_backbone_alone(small, tmp_path):
    write_adapter(tmp_path / "adapter", small[0], ALL)
    expected = logits(small[1], adapter=tmp_path / "adapter")
    blobs = {path.name: Blob(path.read_bytes()) for path in (tmp_path / "adapter").iterdir()}
    for adapter in (blobs, [blobs]):
        np.testing.assert_array_equal(logits(small[1], adapter=adapter), expected)
    del blobs["adapter_model.safetensors"]
    with pytest.raises(WeightsError, match=r"has no adapter_model\.safetensors"):
        logits(small[1], adapter=blobs)
    with gw.tidy():
        backbone = gw.GPT2Backbone.from_preset(small[1], "float32", adapter=tmp_path / "adapter")
        lm = gw.GPT2CausalLM(backbone)
        np.testing.assert_array_equal(lm.score(IDS).numpy(), expected)
        with pytest.raises(WeightsError, match="save into another directory"):
            backbone.save_to_preset(small[1])
        lm.dispose()


def test_an_adapter_given_as_the_model(small, tmp_path):
    write_adapter(tmp_path / "adapter", small[0], ALL)
    with pytest.raises(PresetError, match=r"load its base model, with from_preset\("):
        logits(tmp_path / "adapter")


def test_several_adapters_with_weights(small, tmp_path):
    paths = [tmp_path / "one", tmp_path / "other"]
    one, other = (
        write_adapter(path, small[0], modules, seed)
        for seed, (path, modules) in enumerate(zip(paths, (ALL[:5], ALL[3:]), strict=True))
    )
    both = merged_logits(small[0], (one, lambda _: 2.0), (other, lambda _: 2.0))
    np.testing.assert_allclose(logits(small[1], adapter=paths), both, atol=2e-4)
    weighted = merged_logits(small[0], (one, lambda _: 1.0), (other, lambda _: -0.5))
    weights = {str(paths[0]): 0.5, str(paths[1]): -0.25}
    np.testing.assert_allclose(logits(small[1], adapter=weights), weighted, atol=2e-4)


def test_padded_widths_and_quantised_storage(tmp_path):
    """Widths that are no multiples of 8; merged before the weights are rounded."""
    sizes = {"n_embd": 36, "n_layer": 1, "n_head": 3, "n_positions": 16, "vocab_size": 211}
    model = checkpoints.make_model(**sizes)
    directory = checkpoints.save(model, tmp_path / "model")
    names = [f"h.0.{module}" for module in MODULES]
    pairs = write_adapter(tmp_path / "adapter", model, names)
    expected = merged_logits(model, (pairs, lambda _: 2.0))
    arguments = {"adapter": tmp_path / "adapter"}
    np.testing.assert_allclose(logits(directory, **arguments), expected, atol=2e-4)
    rounded = logits(directory, **arguments, dtype="q8")
    assert 1e-6 < np.abs(rounded - expected).mean() < 0.05


def test_a_lost_device_gets_the_adapter_again(small, tmp_path):
    pairs = write_adapter(tmp_path / "adapter", small[0], ALL)
    expected = merged_logits(small[0], (pairs, lambda _: 2.0))
    with gw.GPT2CausalLM.from_preset(
        small[1], preprocessor=None, dtype="float32", adapter=tmp_path / "adapter"
    ) as lm:
        weights = gw.webgpu.sync(lm.backbone.load(lm.device), "load")
        gw.dispose(lm.backbone.weights)
        lm.backbone.weights = weights
        with gw.tidy():
            np.testing.assert_allclose(lm.score(IDS).numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("module", ["h.1.attn.c_proj", "h.1.mlp.c_fc"])
def test_a_merged_model_is_saved(small, tmp_path, module):
    """The matrix of attn.c_proj is square."""
    pairs = write_adapter(tmp_path / "adapter", small[0], [module])
    expected = merged_logits(small[0], (pairs, lambda _: 2.0))
    with gw.GPT2CausalLM.from_preset(
        small[1], preprocessor=None, dtype="float32", adapter=tmp_path / "adapter"
    ) as lm:
        lm.save_to_preset(tmp_path / "merged")
    np.testing.assert_allclose(logits(tmp_path / "merged"), expected, atol=2e-4)


def test_a_merged_model_is_not_saved_over_its_base(small, tmp_path):
    """Its adapters would be merged again when its weights are read again."""
    write_adapter(tmp_path / "adapter", small[0], ["h.1.mlp.c_fc"])
    (tmp_path / "link").symlink_to(small[1])
    with gw.GPT2CausalLM.from_preset(
        small[1], preprocessor=None, dtype="float32", adapter=tmp_path / "adapter"
    ) as lm:
        with pytest.raises(WeightsError, match="save into another directory"):
            lm.save_to_preset(tmp_path / "link")
        with pytest.raises(WeightsError, match="save into another directory"):
            lm.backbone.save_to_preset(small[1])


def test_adapters_that_do_not_fit(small, tmp_path):
    path = tmp_path / "adapter"
    write_adapter(path, small[0], ["h.0.attn.c_attn"])
    other = checkpoints.save(
        checkpoints.make_model(n_embd=24, n_layer=1, n_head=2, n_positions=8, vocab_size=50),
        tmp_path / "other",
    )
    with pytest.raises(WeightsError, match=r"is for \[48, 144\], but the model has \[24, 72\]"):
        logits(other, adapter=path)
    write_adapter(tmp_path / "deep", small[0], ["h.2.attn.c_attn"])
    with pytest.raises(WeightsError, match=r"the model has no h\.2\.attn\.c_attn\.weight"):
        logits(other, adapter=tmp_path / "deep")
    with pytest.raises(InvalidArgumentError, match="adapter must be a directory"):
        logits(other, adapter=3)
    with pytest.raises(InvalidArgumentError, match="adapter maps '' to 1"):
        logits(other, adapter=[""])
    with pytest.raises(InvalidArgumentError, match="finite number"):
        logits(other, adapter={"a": float("nan")})
    gw.convert(small[1], tmp_path / "q8", "q8")
    with pytest.raises(WeightsError, match="cannot be merged into quantised weights"):
        logits(tmp_path / "q8", adapter=path, dtype=None)
