"""``.keras`` files that are damaged, hostile or of other models: one error each."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpt2_wgpu import small_files
from gpt2_wgpu.errors import ConfigError, GPT2WGPUError, TokenizerError, WeightsError
from gpt2_wgpu.models import load_model
from gpt2_wgpu.weights.keras_archive import KerasArchive
from gpt2_wgpu.weights.keras_weights import KerasWeights
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
    "backbone without config": (
        configured(lambda c: c["config"]["backbone"].pop("config")),
        ConfigError, "backbone lacks the config of a GPT2Backbone",
    ),
    "list as the backbone's config": (
        configured(lambda c: c["config"]["backbone"].update(config=[])),
        ConfigError, "backbone lacks the config of a GPT2Backbone",
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


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_rejected(saved: Path, method: int) -> None:
    keras_files.write(saved, keras_files.entries(MODEL) | {CONFIG: bytes(10 << 20)}, method)
    with pytest.raises(WeightsError, match=f"config.json has compression method {method}, "):
        load_model(saved)


def test_sizes_that_an_entry_claims_do_not_bound_what_is_kept(tmp_path: Path) -> None:
    content = b" " * (40 << 20)
    path = keras_files.write(tmp_path / "a.keras", {CONFIG: content}, zipfile.ZIP_DEFLATED)
    size, checksum = struct.pack("<I", len(content)), struct.pack("<I", zlib.crc32(content[:99]))
    data = path.read_bytes().replace(size, struct.pack("<I", 99))
    path.write_bytes(data.replace(struct.pack("<I", zlib.crc32(content)), checksum))
    with KerasArchive(path) as archive:
        tracemalloc.start()
        assert len(archive.read(CONFIG)) == 99
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("offset", [2_000_000_000, 4_000_000_000])
def test_offsets_outside_of_the_file_are_rejected(saved: Path, offset: int) -> None:
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        begin = archive.getinfo(WEIGHTS).header_offset
    place = data.rindex(WEIGHTS.encode()) - 4  # of the offset in the directory
    assert struct.unpack_from("<I", data, place) == (begin,)
    end = data.rindex(b"PK\5\6") + 16  # offset of the directory, which moves all others
    (directory,) = struct.unpack_from("<I", data, end)
    for change, at in ((offset, place), (directory + 1_000_000, end)):
        forged = bytearray(data)
        struct.pack_into("<I", forged, at, change)
        saved.write_bytes(forged)
        with pytest.raises(WeightsError, match=r"story\.keras.*damaged"):
            KerasArchive(saved).weights()


def test_changed_bytes_of_weights_give_values_or_one_error(tmp_path: Path) -> None:
    arrays = keras_files.arrays_of_keras(keras_files.tensors())
    data = keras_files.weights_file(arrays, "")
    chance, rejected = random.Random(5), 0
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(8):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / WEIGHTS).write_bytes(changed)
        try:
            with KerasWeights.open(tmp_path, 1) as weights:
                for name in weights.names():
                    assert weights.read(name).nbytes == weights.entry(name).nbytes
        except WeightsError as error:
            assert str(tmp_path / WEIGHTS) in str(error)
            rejected += 1
    assert 20 < rejected < 180


@pytest.mark.parametrize(
    ("stored", "attribute", "says"),
    [
        ("V2", np.array(["bfloat16"] * 2, "S8"), "V2"),
        ("V2", 16, "V2"),
        ("V8", "bfloat16", "V8"),
        ([("a", "u1"), ("b", "u1")], "bfloat16", "'u1'"),
    ],
)
def test_only_two_bytes_marked_by_a_text_are_bfloat16(
    tmp_path: Path, stored: Any, attribute: Any, says: str
) -> None:
    arrays = keras_files.arrays_of_keras(keras_files.tensors())
    path = "layers/position_embedding/vars/0"
    (tmp_path / WEIGHTS).write_bytes(keras_files.weights_file(arrays, ""))
    with h5py.File(tmp_path / WEIGHTS, "a") as file:
        shape = file[path].shape
        del file[path]
        dataset = file.create_dataset(path, data=np.zeros(shape, stored))
        dataset.attrs["dtype"] = attribute
    with (
        KerasWeights.open(tmp_path, 1) as weights,
        pytest.raises(WeightsError, match=f"wpe.weight is stored as .*{says}.*; only float32"),
    ):
        weights.entry("wpe.weight")


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
