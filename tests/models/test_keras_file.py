"""``.keras`` files: those of KerasHub, and those written here.

Damaged ones are in test_hostile_keras_files.py; `make parity` exchanges files with KerasHub itself.
"""

from __future__ import annotations

import errno
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy

import gpt2_wgpu as gw
from gpt2_wgpu.errors import (
    ConfigError,
    InvalidArgumentError,
    PresetError,
    TokenizerError,
    WeightsError,
)
from gpt2_wgpu.models import GPT2Config, load_model
from tests.memory import tiny
from tests.models import keras_files

pytestmark = pytest.mark.native("NumPy and files")

INPUTS = {"token_ids": [[1, 2, 3, 200]]}
CONFIGS = {"model": keras_files.causal_lm_config(), "backbone": keras_files.backbone_config()}
WEIGHTS, CONFIG = "model.weights.h5", "config.json"


def result(model: Any) -> Any:
    """Logits of a model, or hidden states of a backbone."""
    with gw.tidy():
        return model(INPUTS).numpy()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory in Hugging Face's format with the weights of the ``.keras`` files."""
    directory = tmp_path / "transformers"
    directory.mkdir()
    safetensors.numpy.save_file(keras_files.tensors(), directory / "model.safetensors")
    config = GPT2Config.from_dict(keras_files.backbone_config())
    (directory / CONFIG).write_text(json.dumps(config.to_dict()))
    return directory


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model that KerasHub saved."""
    return keras_files.write(tmp_path / "story.keras", keras_files.entries(CONFIGS["model"]))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_file_of_kerashub_gives_the_model_of_hugging_faces_files(
    checkpoint: Path, tmp_path: Path, kind: str, no_leak: None
) -> None:
    path = keras_files.write(tmp_path / "story.keras", keras_files.entries(CONFIGS[kind]))
    loaded = load_model(path)
    if isinstance(loaded, gw.GPT2CausalLM):
        reference: Any = gw.GPT2CausalLM.from_preset(checkpoint, None, "float32")
        backbone = loaded.backbone
        assert loaded.name == "bard"
        assert loaded.preprocessor is not None
        assert loaded.preprocessor.sequence_length == 6
        assert loaded.generate("ab", max_length=6).startswith("ab")
    else:
        reference = backbone = gw.GPT2Backbone.from_preset(checkpoint, "float32")
        backbone = loaded
    assert (backbone.name, backbone.dropout, backbone.dtype) == ("storyteller", 0.2, "float32")
    np.testing.assert_array_equal(result(loaded), result(reference))
    loaded.dispose()
    reference.dispose()


def test_from_preset_takes_a_file(saved: Path, checkpoint: Path, no_leak: None) -> None:
    with gw.GPT2CausalLM.from_preset(str(saved), dtype="float32") as lm:
        assert lm.generate("ab", max_length=6).startswith("ab")
        logits = result(lm)
    with gw.GPT2CausalLM.from_preset(checkpoint, None, "float32") as reference:
        np.testing.assert_array_equal(logits, result(reference))
    backbone = gw.GPT2Backbone.from_preset(saved, load_weights=False)
    assert backbone.max_sequence_length == keras_files.SIZES["max_sequence_length"]
    backbone.dispose()


@pytest.mark.parametrize(
    ("policy", "stored", "dtype"),
    [
        ("float16", "f2", "float16"),
        ("mixed_float16", "f4", "float32"),
        ("bfloat16", "V2", "float32"),
    ],
)
def test_the_dtype_is_that_of_the_policy(
    tmp_path: Path, policy: str, stored: str, dtype: str
) -> None:
    arrays = keras_files.arrays_of_keras(keras_files.tensors())
    rounded = {
        path: (
            np.ascontiguousarray(array).view("<u2")[..., 1::2].copy() if stored == "V2" else array
        )
        for path, array in arrays.items()
    }
    given = {
        path: array.view(stored) if stored == "V2" else array.astype(stored)
        for path, array in rounded.items()
    }
    contents = keras_files.entries(keras_files.backbone_config(policy), given)
    backbone = load_model(keras_files.write(tmp_path / "story.keras", contents))
    assert isinstance(backbone, gw.GPT2Backbone)
    assert backbone.dtype == dtype
    with gw.tidy():
        found = backbone.position_embedding.get_weights()[0].numpy()
    expected = arrays["layers/position_embedding/vars/0"]
    np.testing.assert_allclose(found, expected, rtol={"f2": 1e-3, "f4": 0, "V2": 1e-2}[stored])
    backbone.dispose()


def datasets(path: Path) -> dict[str, Any]:
    """Path → array of the weights of a ``.keras`` file."""
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(WEIGHTS))) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def test_a_saved_model_has_the_layout_of_kerashub(
    saved: Path, tmp_path: Path, no_leak: None
) -> None:
    lm = load_model(saved)
    assert isinstance(lm, gw.GPT2CausalLM)
    lm.save(tmp_path / "again.keras")
    expected = datasets(saved)
    found = datasets(tmp_path / "again.keras")
    optimizer = [found.pop(f"optimizer/vars/{index}") for index in (0, 1)]
    assert [each.dtype.name for each in optimizer] == ["int32", "float32"]
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)
    with zipfile.ZipFile(tmp_path / "again.keras") as archive:
        assert set(archive.namelist()) == keras_files.entries(CONFIGS["model"]).keys()
        assert archive.testzip() is None
        again = json.loads(archive.read(CONFIG))
    names = ("class_name", "registered_name")
    for place in ([], ["backbone"], ["preprocessor"], ["preprocessor", "tokenizer"]):
        ours, theirs = again, CONFIGS["model"]
        for name in place:
            ours, theirs = ours["config"][name], theirs["config"][name]
        assert [ours[name] for name in names] == [theirs[name] for name in names]
        assert ours["config"].keys() - {"trainable"} == theirs["config"].keys() - {"trainable"}
    logits = result(lm)
    lm.dispose()
    other = load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(result(other), logits)
    other.dispose()


def test_random_and_replaced_weights_are_saved(tmp_path: Path, no_leak: None) -> None:
    path = tmp_path / "story.keras"
    backbone = tiny.backbone(seed=4)
    with gw.tidy():
        backbone.set_weights([weight.numpy() * 2 for weight in backbone.get_weights()])
    expected = result(backbone)
    for _ in range(2):  # the second time it is replaced
        backbone.save(path, save_format="keras_v3")
    backbone.dispose()
    loaded = load_model(path)
    np.testing.assert_array_equal(result(loaded), expected)
    loaded.dispose()


def test_weights_of_torchs_layout_and_of_bfloat16_are_saved(checkpoint: Path) -> None:
    stored = keras_files.tensors()
    for name, tensor in stored.items():
        if name.startswith("h.") and tensor.ndim == 2:
            stored[name] = np.ascontiguousarray(tensor.T)
    safetensors.numpy.save_file(stored, checkpoint / "model.safetensors")
    backbone = gw.GPT2Backbone.from_preset(checkpoint, "float32")
    backbone.save(checkpoint / "story.keras")
    backbone.dispose()
    found = datasets(checkpoint / "story.keras")
    for path, array in keras_files.arrays_of_keras(keras_files.tensors()).items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_tilde_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leak: None
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    backbone = tiny.backbone()
    lm = gw.GPT2CausalLM(backbone, gw.GPT2CausalLMPreprocessor(tiny.tokenizer(), 8))
    lm.save("~/story.keras")
    lm.save_to_preset("~/story")
    assert lm.preprocessor is not None
    lm.preprocessor.save_to_preset("~/text")
    lm.dispose()
    load_model("~/story.keras").dispose()
    gw.GPT2CausalLM.from_preset("~/story").dispose()
    assert {path.name for path in tmp_path.iterdir()} == {"story.keras", "story", "text"}
    assert (tmp_path / "text" / "preprocessor.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("story.h5",), r"suffix .keras.*save_to_preset"),
        (("story.keras", False), r"story.keras exists.*overwrite=True"),
        (("story.keras", True, False), "zipped=False is not supported"),
        (("sto\0ry.keras",), "not a valid file name"),
        ((7,), "filepath must be"),
    ],
)
def test_other_files_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.keras").write_text("old")
    backbone = tiny.backbone()
    with pytest.raises(InvalidArgumentError, match=says):
        backbone.save(*arguments)
    assert Path("story.keras").read_text() == "old"
    backbone.dispose()


def test_what_kerashub_cannot_compute_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "story.keras"
    sizes: dict[str, Any] = dict(keras_files.SIZES)
    backbone = gw.GPT2Backbone(**sizes, activation_function="relu")
    with pytest.raises(ConfigError, match=r"activation_function = 'relu'.*save_to_preset"):
        backbone.save(path)
    backbone.dispose()
    config = tiny.tokenizer().get_config()
    for name, value in {"start_token": None, "added_tokens": {"<|user|>": 300}}.items():
        tokenizer = gw.GPT2Tokenizer.from_config({**config, name: value})
        lm = gw.GPT2CausalLM(tiny.backbone(), gw.GPT2CausalLMPreprocessor(tokenizer, 8))
        with pytest.raises(ConfigError, match=f"GPT2Tokenizer has no {name}"):
            lm.save(path)
        lm.dispose()
    preprocessor = gw.GPT2CausalLMPreprocessor(tiny.tokenizer(), 8, allowed_special="all")
    lm = gw.GPT2CausalLM(tiny.backbone(), preprocessor)
    with pytest.raises(ConfigError, match="allowed_special = 'all'"):
        lm.save(path)
    lm.dispose()
    assert not list(tmp_path.iterdir())


def test_quantised_weights_are_not_written(checkpoint: Path, tmp_path: Path) -> None:
    gw.convert(checkpoint, tmp_path / "q8", "q8")
    backbone = gw.GPT2Backbone.from_preset(tmp_path / "q8")
    with pytest.raises(WeightsError, match=r"wte.weight is quantised"):
        backbone.save(tmp_path / "story.keras")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    backbone.dispose()


@pytest.mark.parametrize("place", ["weights", "archive"])
def test_a_full_disk_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = saved.read_bytes()
    lm = load_model(saved)
    if place == "weights":
        monkeypatch.setattr(h5py.File, "create_dataset", full)
    else:
        monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(WeightsError, match=r"story.keras: cannot be written: No space left"):
        lm.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["story.keras"]
    lm.dispose()


# --- arguments ------------------------------------------------------------------------------------


def test_a_model_without_text(tmp_path: Path) -> None:
    config = keras_files.causal_lm_config(text=False)
    path = keras_files.write(tmp_path / "ids.keras", keras_files.entries(config))
    lm = load_model(path)
    assert isinstance(lm, gw.GPT2CausalLM)
    assert lm.preprocessor is None
    lm.dispose()
    with pytest.raises(TokenizerError, match="was saved without a preprocessor"):
        gw.GPT2CausalLM.from_preset(path)


def test_odd_arguments_are_rejected(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match="custom_objects must be None"):
        load_model(saved, custom_objects={"Mine": int})
    with pytest.raises(InvalidArgumentError, match=r"files with the suffix \.keras"):
        load_model(saved.parent)
    for load in (load_model, gw.GPT2CausalLM.from_preset):
        with pytest.raises(PresetError, match=r"no such file: .*missing\.keras"):
            load(saved.parent / "missing.keras")
    for read in (
        gw.GPT2Tokenizer.from_preset,
        lambda path: gw.convert(path, saved.parent / "q", "q8"),
    ):
        with pytest.raises(PresetError, match=r"story\.keras is a model that Keras saved"):
            read(saved)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"pip install 'gpt2-wgpu\[keras\]'"):
        load_model(saved)
