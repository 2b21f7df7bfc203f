"""Model names: precedence, and a one-line error for an unknown name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights import presets as module
from gpt2_wgpu.weights.presets import presets, resolve

HUB = Path("/from/the/hub")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names that would have gone to the Hub; the working directory is empty."""
    names: list[str] = []

    def fake(name: str, on_progress: object = None, weights: bool = True) -> Path:
        names.append(name)
        return HUB

    monkeypatch.setattr(module, "resolve_directory", fake)
    monkeypatch.chdir(tmp_path)
    return names


def make_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("gpt2_base_en", "openai-community/gpt2"),
        ("gpt2_medium_en", "openai-community/gpt2-medium"),
        ("gpt2_large_en", "openai-community/gpt2-large"),
        ("gpt2_extra_large_en", "openai-community/gpt2-xl"),
        ("gpt2", "openai-community/gpt2"),
        ("gpt2-medium", "openai-community/gpt2-medium"),
        ("gpt2-large", "openai-community/gpt2-large"),
        ("gpt2-xl", "openai-community/gpt2-xl"),
        ("distilgpt2", "distilbert/distilgpt2"),
    ],
)
def test_names_of_checkpoints_on_the_hub(name: str, hub_id: str, asked: list[str]) -> None:
    assert resolve(name) == HUB
    assert asked == [f"hf://{hub_id}"]
    assert hub_id in presets()[name]


@pytest.mark.parametrize(
    "name", ["owner/name", "hf://owner/name", "owner/name@refs/pr/1", "hf://x"]
)
def test_hub_ids_are_passed_on(name: str, asked: list[str]) -> None:
    assert resolve(name) == HUB
    assert asked == [name]


def test_progress_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(module, "resolve_directory", lambda name, report, _: report(name) or HUB)
    for name in ("gpt2", "owner/name", "hf://owner/name"):
        resolve(name, reported.append)
    assert reported == ["hf://openai-community/gpt2", "owner/name", "hf://owner/name"]


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "fairytales", "my model"])
def test_directory_with_a_model_wins(name: str, asked: list[str], tmp_path: Path) -> None:
    make_model(tmp_path / name)
    assert resolve(name) == Path(name)
    assert resolve(Path(name)) == Path(name)
    assert resolve(tmp_path / name) == tmp_path / name
    assert asked == []


def test_home_directory(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_model(tmp_path / "m")
    assert resolve("~/m") == tmp_path / "m"


def test_preset_wins_over_a_directory_without_a_model(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "gpt2").mkdir()
    assert resolve("gpt2") == HUB


@pytest.mark.parametrize("name", ["empty", "owner/empty", "./empty"])
def test_directory_without_a_model(name: str, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(PresetError, match=f"directory '{name}' has no config.json"):
        resolve(name)
    assert asked == []


def test_path_of_a_file(asked: list[str], tmp_path: Path) -> None:
    file = make_model(tmp_path / "m") / "config.json"
    with pytest.raises(PresetError, match="is a file; pass the directory"):
        resolve(str(file))


@pytest.mark.parametrize(
    "name", ["/no/where", "./none", "../none", "~/none", "a/b/c", "a\\b", "none/", ".", "~absent/x"]
)
def test_missing_directory(name: str, asked: list[str]) -> None:
    with pytest.raises(PresetError, match=r"no such directory: |has no config\.json"):
        resolve(name)
    assert asked == []


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "none"])
def test_path_object_is_never_a_name(name: str, asked: list[str]) -> None:
    with pytest.raises(PresetError, match=f"no such directory: '{name}'"):
        resolve(Path(name))
    assert asked == []


@pytest.mark.parametrize(
    ("name", "close"),
    [("gpt2_base", "gpt2_base_en"), ("fairytale", "fairytales"), ("GPT2-XL", "gpt2-xl")],
)
def test_unknown_name_lists_the_known_ones(name: str, close: str, asked: list[str]) -> None:
    with pytest.raises(
        PresetError, match=f"unknown model '{name}', did you mean '{close}'"
    ) as caught:
        resolve(name)
    for known in presets():
        assert known in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["llama", "x" * 10_000, "two\nlines"])
def test_unknown_name_without_a_close_one(name: str, asked: list[str]) -> None:
    with pytest.raises(PresetError, match="unknown model") as caught:
        resolve(name)
    assert "did you mean" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["a\0b", "~\0", "hf://a/b\0", "~\ud800", "a/\ud800"])
def test_name_that_no_file_can_have(name: str, asked: list[str]) -> None:
    with pytest.raises(PresetError, match=r"holds a character that names of .* cannot have"):
        resolve(name)
    assert not asked


@pytest.mark.parametrize("name", ["", "  ", b"gpt2", None, 5])
def test_empty_name(name: Any) -> None:
    with pytest.raises(PresetError, match=f"model name {name!r} is empty or not text"):
        resolve(name)


def test_what_was_typed_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(name: str, on_progress: object, weights: bool = True) -> Path:
        raise PresetError(f"{name} is gone")

    monkeypatch.setattr(module, "resolve_directory", reject)
    for name, message in {
        "gpt2": "gpt2: hf://openai-community/gpt2 is gone",
        "hf://owner/name": "hf://owner/name is gone",
    }.items():
        with pytest.raises(PresetError) as caught:
            resolve(name)
        assert str(caught.value) == message


@pytest.mark.parametrize("name", ["kaggle://keras/gpt2/keras/gpt2_base_en", "https://x.org/gpt2"])
def test_other_schemes(name: str, asked: list[str]) -> None:
    with pytest.raises(PresetError, match="only hf:// addresses and pages of models"):
        resolve(name)


def test_preset_that_only_keras_hub_has(asked: list[str]) -> None:
    with pytest.raises(PresetError, match="exists only in KerasHub's own weight format"):
        resolve("gpt2_base_en_cnn_dailymail")
    assert "gpt2_base_en_cnn_dailymail" not in presets()


def test_embedded_model(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, checkout = tmp_path / "wheel", tmp_path / "checkout"
    monkeypatch.setattr(module, "_EMBEDDED_PLACES", (wheel, checkout))
    in_browser = sys.platform == "emscripten"
    message = "the wheel for browsers" if in_browser else "'fairytales' is not in this installation"
    with pytest.raises(PresetError, match=message):
        resolve("fairytales")
    make_model(checkout)
    assert resolve("fairytales") == checkout
    make_model(wheel)
    assert resolve("fairytales") == wheel
    assert asked == []


def test_places_of_the_embedded_model() -> None:
    wheel, checkout = module._EMBEDDED_PLACES
    package = Path(module.__file__).resolve().parents[1]
    assert wheel == package / "presets" / "fairytales"
    assert checkout == package.parent / "models" / "fairytales"


def test_presets_can_be_listed() -> None:
    assert next(iter(presets())) == "fairytales"
    assert all(description for description in presets().values())
