"""Preset directories of KerasHub: configuration, tokenizer, and weights in HDF5.

h5py is replaced by a dictionary of arrays here; `make parity` reads a file of KerasHub itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpt2_wgpu as gw
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.models import GPT2Config
from tests.memory import tiny
from tests.models.keras_files import SIZES, WIDTH, arrays_of_keras, tensors

pytestmark = pytest.mark.native("NumPy and files")

IDS = [[1, 2, 3, 200]]


class Dataset(np.ndarray):
    """What ``h5py.File`` gives for the path of an array."""

    external: list[tuple[str, int, int]] | None = None
    is_virtual = False

    @property
    def id(self) -> SimpleNamespace:
        """The dataset in the file, which takes as many bytes as the array."""
        return SimpleNamespace(get_storage_size=lambda: self.nbytes)


class HardLink:
    """Kind of a link to data of the same file."""


class ExternalLink:
    """Kind of a link to data of another file."""


class File(dict[str, Any]):
    """``h5py.File``: path → array."""

    opened: int = 0

    def get(self, path: str, *, getclass: bool, getlink: bool) -> Any:  # type: ignore[override]
        assert getclass
        assert getlink
        if super().get(path) is ExternalLink:
            return ExternalLink
        return HardLink if any(f"{each}/".startswith(f"{path}/") for each in self) else None

    def close(self) -> None:
        File.opened -= 1


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, File]:
    """A preset directory of KerasHub, and the arrays that its weights file holds."""
    directory = tmp_path / "keras"
    assets = directory / "assets" / "tokenizer"
    assets.mkdir(parents=True)
    config = tiny.tokenizer().get_config()
    (assets / "vocabulary.json").write_text(json.dumps(config["vocabulary"]))
    (assets / "merges.txt").write_text("#version: 0.2\n")
    files: list[tuple[str, str, dict[str, Any]]] = [
        ("config", "GPT2Backbone", SIZES),
        ("tokenizer", "GPT2Tokenizer", {"sequence_length": None}),
    ]
    for name, kind, values in files:
        serialised = {"class_name": kind, "config": {"trainable": True, **values}}
        (directory / f"{name}.json").write_text(json.dumps(serialised))
    (directory / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    arrays = arrays_of_keras(tensors())
    stored = File({path: array.view(Dataset) for path, array in arrays.items()})

    def opened(path: Path, mode: str) -> File:
        assert (path, mode) == (directory / "model.weights.h5", "r")
        File.opened += 1
        return stored

    monkeypatch.setitem(
        sys.modules, "h5py", SimpleNamespace(File=opened, Dataset=Dataset, HardLink=HardLink)
    )
    return directory, stored


def logits_of(lm: gw.GPT2CausalLM) -> Any:
    with gw.tidy():
        return lm({"token_ids": IDS}).numpy()


def test_a_preset_of_kerashub_gives_the_model_of_hugging_faces_files(
    preset: tuple[Path, File], tmp_path: Path, no_leak: None
) -> None:
    directory, _ = preset
    other = tmp_path / "transformers"
    other.mkdir()
    safetensors.numpy.save_file(tensors(), other / "model.safetensors")
    config = GPT2Config.from_json_file(directory / "config.json")
    (other / "config.json").write_text(json.dumps(config.to_dict()))
    reference = gw.GPT2CausalLM.from_preset(other, None, "float32")
    with gw.GPT2CausalLM.from_preset(directory, dtype="float32") as lm, reference:
        np.testing.assert_array_equal(logits_of(lm), logits_of(reference))
        assert lm.preprocessor is not None
        assert lm.preprocessor.sequence_length == lm.backbone.max_sequence_length == 8
        assert lm.generate("ab", max_length=6).startswith("ab")
    assert File.opened == 0


def array(shape: tuple[int, ...] = (8, WIDTH), dtype: str = "f4", **attributes: Any) -> Dataset:
    found = np.zeros(shape, dtype).view(Dataset)
    vars(found).update(attributes)
    return found


@pytest.mark.parametrize(
    ("path", "replacement", "says"),
    [
        ("layers/transformer_decoder_1/_feedforward_layer_norm/vars/0", None, "holds no layers/"),
        ("layers/position_embedding/vars/0", array((8, WIDTH), "f8"), "'float64'; only float32"),
        ("layers/position_embedding/vars/0", array((9, WIDTH)), "wpe.weight"),
        ("layers/reversible_embedding/vars/0", array((9,)), r"wte.weight has shape \(9,\)"),
        ("layers/position_embedding/vars/0", array(()), "vars/0 is not an array"),
        ("layers/position_embedding/vars/0", {}, "vars/0 is not an array"),
        ("layers/position_embedding", ExternalLink, "vars/0 is a link"),
        ("layers/position_embedding/vars/0", array(external=[("f", 0, 9)]), "in other files"),
        ("layers/position_embedding/vars/0", array(is_virtual=True), "in other files"),
    ],
)
def test_other_weights_are_rejected(
    preset: tuple[Path, File], path: str, replacement: Any, says: str, no_leak: None
) -> None:
    directory, stored = preset
    if replacement is None:
        del stored[path]
    else:
        stored[path] = replacement
    with pytest.raises(WeightsError, match=says):
        gw.GPT2Backbone.from_preset(directory, dtype="float32")
    assert File.opened == 0


def test_without_h5py_the_error_names_the_extra(
    preset: tuple[Path, File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"pip install 'gpt2-wgpu\[keras\]'"):
        gw.GPT2Backbone.from_preset(preset[0])
