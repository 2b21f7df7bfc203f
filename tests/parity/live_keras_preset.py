"""Presets and ``.keras`` files of KerasHub itself, in `make parity`: with h5py and keras-hub."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models import load_model


def kerashub(*arguments: str) -> None:
    command = [sys.executable, "-m", "tests.parity.references.keras_preset", *arguments]
    subprocess.run(command, check=True, timeout=600)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What KerasHub wrote, and computed."""
    directory = tmp_path_factory.mktemp("kerashub")
    kerashub(str(directory))
    return directory, json.loads((directory / "expected.json").read_text())


def assert_same(lm: gw.GPT2CausalLM, expected: dict[str, Any]) -> None:
    with gw.tidy():
        logits = lm({"token_ids": expected["ids"]}).numpy()
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-4)
    lm.compile(sampler="greedy")
    assert lm.generate("The king", max_length=12) == expected["text"]


def test_a_preset_that_keras_hub_wrote_computes_the_same(
    written: tuple[Path, dict[str, Any]],
) -> None:
    directory, expected = written
    with gw.GPT2CausalLM.from_preset(directory, dtype="float32") as lm:
        assert_same(lm, expected)


def test_keras_files_compute_the_same_in_both_directions(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    directory, expected = written
    lm = load_model(directory / "model.keras")
    backbone = load_model(directory / "backbone.keras")
    assert isinstance(lm, gw.GPT2CausalLM)
    assert isinstance(backbone, gw.GPT2Backbone)
    assert_same(lm, expected)
    with gw.tidy():
        hidden = backbone({"token_ids": expected["ids"]}).numpy()
    np.testing.assert_allclose(hidden, expected["hidden"], atol=2e-4)
    lm.name, lm.backbone.name = "bard", "storyteller"
    lm.save(tmp_path / "model.keras")
    backbone.save(tmp_path / "backbone.keras")
    lm.dispose()
    backbone.dispose()
    for name in ("model.keras", "backbone.keras"):
        assert arrays(tmp_path / name) == arrays(directory / name)
    kerashub("--read", str(tmp_path))
    read = json.loads((tmp_path / "read.json").read_text())
    assert read["names"] == ["bard", "storyteller", "GPT2CausalLM", "GPT2Backbone"]
    assert read["text"] == expected["text"]
    for name in ("logits", "hidden"):
        np.testing.assert_array_equal(read[name], expected[name])


def arrays(path: Path) -> dict[str, tuple[Any, ...]]:
    """Path, shape and bytes of all arrays of a file, whose entries have the same names."""
    found: dict[str, tuple[Any, ...]] = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as stored:
        found["entries"] = tuple(sorted(archive.namelist()))
        with h5py.File(stored, "r") as file:
            file.visititems(
                lambda name, item: (
                    found.update({name: (item.shape, item[()].tobytes())})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    return found
