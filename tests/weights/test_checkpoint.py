"""Checkpoint directories: one file, shards with an index, and errors."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, shard_names
from tests.weights.building import json_file, tensor, valid_file, write

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
MAP = {"a": FIRST, "b": SECOND, "c": SECOND}


def write_index(directory: Path, weight_map: object) -> None:
    text = json.dumps({"metadata": {"total_size": 9}, "weight_map": weight_map})
    (directory / INDEX_FILE).write_text(text)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write(tmp_path / FIRST, valid_file({"a": ("U8", [2], b"aa")}))
    write(tmp_path / SECOND, valid_file({"b": ("U8", [3], b"bbb"), "c": ("U8", [4], b"cccc")}))
    write_index(tmp_path, MAP)
    return tmp_path


def test_single_file(tmp_path: Path) -> None:
    write(
        tmp_path / SINGLE_FILE, valid_file({"a": ("F16", [1, 2], b"abcd"), "b": ("U8", [0], b"")})
    )
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.names() == ("a", "b")
        assert checkpoint.nbytes == 4
        assert checkpoint.where == str(tmp_path)
        assert checkpoint.entry("a").shape == (1, 2)
        assert bytes(checkpoint.read("a")) == b"abcd"


def test_shards(sharded: Path) -> None:
    with Checkpoint.open(str(sharded)) as checkpoint:
        assert checkpoint.names() == ("a", "b", "c")
        assert checkpoint.nbytes == 9
        assert {name: bytes(checkpoint.read(name)) for name in checkpoint.names()} == {
            "a": b"aa",
            "b": b"bbb",
            "c": b"cccc",
        }
        assert checkpoint.entry("c").nbytes == 4
    assert shard_names(sharded / INDEX_FILE) == (FIRST, SECOND)


def test_single_file_wins_over_shards(sharded: Path) -> None:
    write(sharded / SINGLE_FILE, valid_file({"only": ("U8", [1], b"x")}))
    with Checkpoint.open(sharded) as checkpoint:
        assert checkpoint.names() == ("only",)
        (disagreement,) = checkpoint.disagreements
    assert f"{SINGLE_FILE} is read, and {INDEX_FILE} beside it" in disagreement


def test_shards_may_be_links_into_a_cache(
    sharded: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The Hub's cache is made of links; only names are confined to the directory."""
    blob = tmp_path_factory.mktemp("blobs") / "0123"
    (sharded / FIRST).rename(blob)
    (sharded / FIRST).symlink_to(blob)
    with Checkpoint.open(sharded) as checkpoint:
        assert bytes(checkpoint.read("a")) == b"aa"


@pytest.mark.parametrize(
    "shard",
    [
        f"../{FIRST}",
        f"/etc/{FIRST}",
        f"sub/{FIRST}",
        f"..\\{FIRST}",
        f"C:{FIRST}",
        "..",
        ".safetensors",
        "",
        "model.bin",
        f"{FIRST}\0.safetensors",
        7,
        None,
        [FIRST],
    ],
)
def test_index_cannot_lead_out_of_the_directory(sharded: Path, shard: object) -> None:
    write_index(sharded, {**MAP, "a": shard})
    with pytest.raises(WeightsError, match=r"tensor 'a' is mapped to .* next to the index"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"<html>", "this is a web page, not JSON"),
        (b"[]", "non-empty object 'weight_map'"),
        (b"{}", "non-empty object 'weight_map'"),
        (b'{"weight_map":{}}', "non-empty object 'weight_map'"),
        (b'{"weight_map":["a"]}', "non-empty object 'weight_map'"),
        (b'{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', "'a' appears twice"),
        (b'{"weight_map":NaN}', "NaN is not JSON"),
        (b'{"weight_map":' * 100_000, "nested too deeply"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_malformed_index_is_refused(sharded: Path, text: bytes, message: str) -> None:
    write(sharded / INDEX_FILE, text)
    with pytest.raises(WeightsError, match=message) as caught:
        Checkpoint.open(sharded)
    assert INDEX_FILE in str(caught.value)


def test_missing_shard_is_named(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    with pytest.raises(WeightsError, match=f"1 of 2 shards are missing: {SECOND};"):
        Checkpoint.open(sharded)


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    write_index(tmp_path, {f"t{i}": f"model-{i}.safetensors" for i in range(5)})
    with pytest.raises(WeightsError, match=r"5 of 5 .*model-2\.safetensors, \.\.\. \(2 more\);"):
        Checkpoint.open(tmp_path)


def test_tensor_that_is_not_in_its_shard(sharded: Path) -> None:
    write_index(sharded, {**MAP, "b": FIRST})
    with Checkpoint.open(sharded) as checkpoint:
        assert bytes(checkpoint.read("b")) == b"bbb"
        (disagreement,) = checkpoint.disagreements
    assert f"b in {SECOND}, which is read, and not in {FIRST}" in disagreement


def test_tensor_that_is_in_no_shard(sharded: Path) -> None:
    write_index(sharded, {**MAP, "d": FIRST})
    with pytest.raises(WeightsError, match=f"tensor 'd' should be in {FIRST}"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize("named", [FIRST, SECOND])
def test_of_a_tensor_in_two_shards_the_last_is_read(named: str, sharded: Path) -> None:
    """As transformers 5 does, whichever of the two the index names."""
    write(sharded / FIRST, valid_file({"a": ("U8", [2], b"aa"), "b": ("U8", [3], b"xxx")}))
    write_index(sharded, {**MAP, "b": named})
    with Checkpoint.open(sharded) as checkpoint:
        assert bytes(checkpoint.read("b")) == b"bbb"
        (disagreement,) = checkpoint.disagreements
    assert f"b in both {FIRST} and {SECOND}: the latter is read" in disagreement


def test_shards_that_agree_disagree_on_nothing(sharded: Path) -> None:
    with Checkpoint.open(sharded) as checkpoint:
        assert list(checkpoint.disagreements) == []


def test_shards_without_their_index(sharded: Path) -> None:
    (sharded / INDEX_FILE).unlink()
    with Checkpoint.open(sharded) as checkpoint:
        assert checkpoint.names() == ("a", "b", "c")
    (sharded / FIRST).unlink()
    message = f"{SECOND} is there without the index {INDEX_FILE}, and {FIRST} missing; download"
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(sharded)


def test_damaged_shard_is_named_and_the_others_are_let_go(sharded: Path) -> None:
    write(sharded / SECOND, json_file({"b": tensor(0, 9)}, b"bbb"))
    with pytest.raises(WeightsError, match=f"{SECOND}: tensor 'b' ends at byte"):
        Checkpoint.open(sharded)
    gc.collect()
    maps = Path("/proc/self/maps")
    assert not maps.exists() or FIRST not in maps.read_text()


def test_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    write(tmp_path / "pytorch_model.bin", b"\x80\x02")
    with pytest.raises(WeightsError, match=r"pickle, which can run code .*save_pretrained"):
        Checkpoint.open(tmp_path)


def test_other_safetensors_are_named(tmp_path: Path) -> None:
    write(tmp_path / "gpt2.safetensors", json_file({}))
    with pytest.raises(WeightsError, match=r"no model\.safetensors .*only gpt2\.safetensors"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (lambda directory: directory, "there is no model.safetensors"),
        (lambda directory: directory / "none", "none: no such directory"),
    ],
)
def test_nothing_there(path: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(path(tmp_path))


def test_unknown_names_and_use_after_close(sharded: Path) -> None:
    checkpoint = Checkpoint.open(sharded)
    for ask in (checkpoint.entry, checkpoint.read):
        with pytest.raises(WeightsError, match="there is no tensor 'zz'"):
            ask("zz")
    view = checkpoint.read("a")
    checkpoint.close()
    checkpoint.close()
    assert bytes(view) == b"aa"
    with pytest.raises(WeightsError, match="after the file was closed"):
        checkpoint.read("a")
