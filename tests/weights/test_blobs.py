"""Checkpoints of blobs: the same checks as for files, and only headers are read."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights import tied_head
from gpt2_wgpu.weights.blobs import BlobCheckpoint
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE
from tests.weights.building import valid_file

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


class Buffer(bytes):
    """JavaScript's ArrayBuffer."""

    def to_bytes(self) -> bytes:
        return bytes(self)


@dataclass
class FakeBlob:
    """JavaScript's Blob, that counts the bytes read of it."""

    data: bytes
    read: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def slice(self, begin: int, end: int) -> FakeBlob:
        return FakeBlob(self.data[begin:end], self.read)

    async def arrayBuffer(self) -> Buffer:
        self.read.append(len(self.data))
        return Buffer(self.data)


def opened(files: dict[str, bytes]) -> BlobCheckpoint:
    return asyncio.run(
        BlobCheckpoint.open({name: FakeBlob(data) for name, data in files.items()}, "model")
    )


def test_one_file() -> None:
    data = valid_file({"a": ("F16", [1, 2], b"abcd"), "b": ("U8", [3], b"xyz")})
    checkpoint = opened({SINGLE_FILE: data, "config.json": b"{}"})
    assert checkpoint.names() == ("a", "b")
    assert checkpoint.entry("b").shape == (3,)
    place = checkpoint.read("b")
    assert data[place.begin : place.end] == b"xyz"
    with pytest.raises(WeightsError, match="there is no tensor 'c'"):
        checkpoint.read("c")


def test_only_the_header_is_read() -> None:
    blob = FakeBlob(valid_file({"a": ("U8", [1_000_000], bytes(1_000_000))}))
    asyncio.run(BlobCheckpoint.open({SINGLE_FILE: blob}, "model"))
    assert sum(blob.read) < 1000


def test_shards() -> None:
    weight_map = {"a": FIRST, "b": SECOND}
    files = {
        FIRST: valid_file({"a": ("U8", [2], b"aa")}),
        SECOND: valid_file({"b": ("U8", [3], b"bbb")}),
        INDEX_FILE: json.dumps({"weight_map": weight_map}).encode(),
    }
    place = opened(files).read("b")
    assert place.blob.data[place.begin : place.end] == b"bbb"
    moved = files | {INDEX_FILE: json.dumps({"weight_map": {"a": SECOND}}).encode()}
    del moved[FIRST]
    with pytest.raises(WeightsError, match="tensor 'a' should be in"):
        opened(moved)
    stale = opened(files | {FIRST: valid_file({"a": ("U8", [2], b"aa"), "b": ("U8", [1], b"x")})})
    place = stale.read("b")
    assert place.blob.data[place.begin : place.end] == b"bbb"
    assert f"b in both {FIRST} and {SECOND}: the latter is read" in stale.disagreements[0]
    del files[SECOND]
    with pytest.raises(WeightsError, match="1 of 2 shards are missing"):
        opened(files)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "this is a Git LFS pointer"),
        (b"<!doctype html><title>404</title>", "this is a web page"),
        (valid_file({"a": ("U8", [9], b"a" * 9)})[:-1], "model/model.safetensors"),
    ],
)
def test_what_is_no_checkpoint(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        opened({SINGLE_FILE: data})


def test_no_weights_at_all() -> None:
    with pytest.raises(WeightsError, match="there is no model"):
        opened({"config.json": b"{}"})


@pytest.mark.parametrize("where", ["start", "end", "nowhere"])
def test_a_head_in_a_blob_is_compared(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_head, "_PIECE", 3)
    embedding = bytes(range(32))
    head = {"start": b"\xff" + embedding[1:], "end": embedding[:-1] + b"\xff"}.get(where, embedding)
    tensors = {"transformer.wte.weight": embedding, "lm_head.weight": head}
    data = valid_file({name: ("F32", [4, 2], content) for name, content in tensors.items()})
    found = asyncio.run(tied_head.differing_head(opened({SINGLE_FILE: data})))
    assert (found is None) == (where == "nowhere")
    assert found is None or "lm_head.weight and transformer.wte.weight" in found


def test_an_index_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBlob, "size", 1 << 30)
    blob = FakeBlob(b"{}")
    with pytest.raises(WeightsError, match=r"model/.*index\.json: 1,073,741,824 bytes is above"):
        asyncio.run(BlobCheckpoint.open({INDEX_FILE: blob}, "model"))
    assert blob.read == []
