"""`gpt2-wgpu list`: presets, and the models in the Hub's cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.weights import local_models

Captured = pytest.CaptureFixture[str]


def add_model(cache: Path, repository: str, files: dict[str, str]) -> None:
    """Adds a repository to a Hub cache, in its layout."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    snapshot.mkdir(parents=True)
    for name, text in files.items():
        (folder / "blobs" / name).write_text(text)
        (snapshot / name).symlink_to(folder / "blobs" / name)


def test_presets_and_cached_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    gpt2 = '{"model_type": "gpt2"}'
    whole = {"config.json": gpt2, "tokenizer.json": "{}", "model.safetensors": "x" * 2**20}
    partial = {name: text for name, text in whole.items() if name != "model.safetensors"}
    add_model(tmp_path, "openai-community/gpt2", whole)
    add_model(tmp_path, "some/model", whole)
    add_model(tmp_path, "some/part", partial)
    add_model(tmp_path, "some/llama", whole | {"config.json": '{"model_type": "llama"}'})
    add_model(tmp_path, "some/broken", whole | {"config.json": "["})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["list", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found.keys() == gw.presets().keys() | {"some/model"}
    available = {name for name, each in found.items() if each["available"]}
    assert available == {"fairytales", "gpt2", "gpt2_base_en", "some/model"}
    assert found["gpt2"]["bytes"] == found["some/model"]["bytes"] == sum(map(len, whole.values()))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["some/model", "1.0", "MiB", "from", "the", "Hub"]
    assert "  14." in lines[1] and lines[1].startswith("fairytales ")
    assert " -  " in next(line for line in lines if line.startswith("distilgpt2"))


@pytest.mark.parametrize("absent", [True, False])
def test_without_a_cache(absent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without huggingface_hub there is no cache either."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    if absent:
        monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    names = [each.name for each in local_models.local_models() if each.nbytes is not None]
    assert names == ["fairytales"]
