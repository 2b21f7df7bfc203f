"""``.keras`` files that are damaged, hostile or of other models: one error each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from gpt2_wgpu import small_files
from gpt2_wgpu.errors import ConfigError, GPT2WGPUError, TokenizerError, WeightsError
from gpt2_wgpu.models import load_model
from tests.models import keras_files

pytestmark = pytest.mark.native("NumPy and files")

MODEL = keras_files.causal_lm_config()
WEIGHTS, CONFIG = "model.weights.h5", "config.json"
MERGES = "assets/preprocessor/tokenizer/merges.txt"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model that KerasHub saved."""
    return keras_files.write(tmp_path / "story.keras", keras_files.entries(MODEL))


Change = Callable[[dict[str, bytes]], dict[str, bytes]]


def without(name: str) -> Change:
    return lambda contents: {key: value for key, value in contents.items() if key != name}


def configured(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Apply ``change`` to the configuration."""

    def changed(contents: dict[str, bytes]) -> dict[str, bytes]:
        config = json.loads(contents[CONFIG])
        change(config)
        return contents | {CONFIG: json.dumps(config).encode()}

    return changed


def larger(config: dict[str, Any]) -> None:
    config["config"]["backbone"]["config"]["max_sequence_length"] = 9


def stored_in_pieces(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Position embeddings of few bytes that unpack to many."""
    file = io.BytesIO(contents[WEIGHTS])
    path = "layers/gpt2_backbone/layers/position_embedding/vars/0"
    with h5py.File(file, "a") as stored:
        shape = stored[path].shape
        del stored[path]
        stored.create_dataset(path, shape, "f4", chunks=shape, compression="gzip")
    return contents | {WEIGHTS: file.getvalue()}


def tokenizer_of(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the tokenizer."""
    found: dict[str, Any] = config["config"]["preprocessor"]["config"]["tokenizer"]["config"]
    return found


BAD: dict[str, tuple[Change, type[GPT2WGPUError], str]] = {
    "no config": (without(CONFIG), WeightsError, r"there is no config.json"),
    "no weights": (without(WEIGHTS), WeightsError, r"there is no model.weights.h5"),
    "no merges": (without(MERGES), WeightsError, r"there is no assets/.*merges.txt"),
    "no HDF5": (lambda c: c | {WEIGHTS: b"x" * 99}, WeightsError, "h5: cannot be read"),
    "no JSON": (lambda c: c | {CONFIG: b"{"}, ConfigError, r"config.json: not JSON"),
    "no object": (lambda c: c | {CONFIG: b"[1]"}, ConfigError, "holds a None of Keras"),
    "class": (
        configured(lambda c: c.update(class_name="Lambda")), ConfigError, "a 'Lambda' of Keras",
    ),
    "backbone": (
        configured(lambda c: c["config"].update(backbone=[])), ConfigError, "no GPT2Backbone",
    ),
    "preprocessor": (
        configured(lambda c: c["config"]["preprocessor"].update(class_name="Mine")),
        ConfigError, "preprocessor is a 'Mine'",
    ),
    "tokenizer": (
        configured(lambda c: c["config"]["preprocessor"]["config"].update(tokenizer=3)),
        TokenizerError, r"story.keras/tokenizer.json: this is not a serialised",
    ),
    "kind of class": (
        configured(lambda c: c.update(class_name={})), ConfigError, r"holds a \{\} of Keras",
    ),
    "argument": (
        configured(lambda c: tokenizer_of(c).update(colour=1)),
        TokenizerError, "GPT2Tokenizer has no argument 'colour'",
    ),
    "policy": (
        configured(lambda c: tokenizer_of(c).update(dtype={"config": "int32"})),
        TokenizerError, "dtype must be 'int32' or 'string', not None",
    ),
    "sizes": (configured(larger), WeightsError, r"wpe.weight is \[8, 12\] instead of \[9, 12\]"),
    "compressed array": (stored_in_pieces, WeightsError, "compressed or incomplete"),
    "vocabulary": (
        lambda c: c | {MERGES.replace("merges.txt", "vocabulary.json"): b"{}"},
        TokenizerError, "story.keras",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_entries_are_rejected(saved: Path, name: str, no_leak: None) -> None:
    change, kind, says = BAD[name]
    keras_files.write(saved, change(keras_files.entries(MODEL)))
    with pytest.raises(kind, match=says) as raised:
        load_model(saved)
    assert str(saved) in str(raised.value)


def cut(data: bytes) -> bytes:
    return data[:-200]


def without_bytes_inside(data: bytes) -> bytes:
    """Without 40 kB of the weights: the directory at the end is whole."""
    begin = data.index(b"\x89HDF") + 1000
    return data[:begin] + data[begin + 40_000 :]


def flagged(data: bytes) -> bytes:
    """With the flag of encryption in the directory's first entries."""
    found = data.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    assert found != data
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut, "damaged, or not a model that Keras saved"),
        (without_bytes_inside, "damaged"),
        (flagged, "is encrypted"),
        (lambda data: b"", "damaged, or not a model"),
        (lambda data: b"model", "damaged, or not a model"),
    ],
)
def test_damaged_files_are_rejected(
    saved: Path, change: Callable[[bytes], bytes], says: str, no_leak: None
) -> None:
    saved.write_bytes(change(saved.read_bytes()))
    with pytest.raises(WeightsError, match=rf"story\.keras.*{says}"):
        load_model(saved)


def test_entries_that_unpack_to_much_are_rejected(saved: Path) -> None:
    contents = keras_files.entries(MODEL)
    bomb = {CONFIG: b" " * (small_files.MAX_BYTES + 1)}
    keras_files.write(saved, contents | bomb, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"config.json: 67,108,865 bytes is above the limit"):
        load_model(saved)
    keras_files.write(saved, contents, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"model.weights.h5 is compressed"):
        load_model(saved)


def test_names_of_entries_are_no_paths(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("../../evil.py", "raise SystemExit")
        archive.writestr("/tmp/evil.py", "raise SystemExit")
    load_model(saved).dispose()
    assert [path.name for path in saved.parent.iterdir()] == ["story.keras"]
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Dupl"):
        archive.writestr(CONFIG, "{}")
    with pytest.raises(WeightsError, match=r"config.json is there 2 times"):
        load_model(saved)
