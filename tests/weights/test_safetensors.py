"""Mapped safetensors file: equal to the reference library, no copies, safe to close."""

from __future__ import annotations

import gc
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.header import DTYPE_BITS, parse_header
from gpt2_wgpu.weights.safetensors import SafetensorsFile
from tests.weights.building import json_file, tensor, valid_file, write

DTYPES = sorted(DTYPE_BITS)
# reference library's names in deserialize() are the header's own
shapes = st.lists(st.integers(0, 5), max_size=4)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A correct file with tensors of any dtype and shape, in any order, aligned or not."""
    entries = {}
    for name in draw(st.lists(names, unique=True, max_size=6)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(shapes)
        bits = DTYPE_BITS[dtype] * int(np.prod(shape, dtype=np.int64))
        if bits % 8:
            shape, bits = [*shape, 4], bits * 4  # 4- and 6-bit types come in whole bytes
        entries[name] = (dtype, shape, draw(st.binary(min_size=bits // 8, max_size=bits // 8)))
    metadata = draw(st.none() | st.dictionaries(names, names, max_size=2))
    return valid_file(entries, metadata, padding=draw(st.integers(0, 9)))


@given(files())
@settings(max_examples=150, deadline=None)
def test_equals_the_reference_library(content: bytes) -> None:
    header = parse_header(content, len(content), "file")
    reference = dict(safetensors.deserialize(content))
    assert header.tensors.keys() == reference.keys()
    for name, entry in header.tensors.items():
        assert entry.name == name
        assert entry.dtype == reference[name]["dtype"]
        assert list(entry.shape) == reference[name]["shape"]
        assert content[entry.begin : entry.end] == bytes(reference[name]["data"])


@given(files(), st.data())
@example(valid_file({"a": ("F32", [1], bytes(4))}), None)
@settings(max_examples=300, deadline=None)
def test_never_accepts_what_the_reference_library_refuses(
    content: bytes, data: st.DataObject | None
) -> None:
    """One changed byte in the header: rejected, or read as by the reference library."""
    length = struct.unpack_from("<Q", content)[0]
    if data is not None:
        place = data.draw(st.integers(8, 7 + length))
        value = data.draw(st.integers(0, 255))
        content = content[:place] + bytes([value]) + content[place + 1 :]
    try:
        header = parse_header(content, len(content), "file")
    except WeightsError:
        return
    reference = dict(safetensors.deserialize(content))
    assert {
        name: (entry.dtype, list(entry.shape), content[entry.begin : entry.end])
        for name, entry in header.tensors.items()
    } == {
        name: (entry["dtype"], entry["shape"], bytes(entry["data"]))
        for name, entry in reference.items()
    }


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_weights_error_or_a_header(content: bytes) -> None:
    for candidate in (content, struct.pack("<Q", len(content)) + content):
        try:
            header = parse_header(candidate, len(candidate), "file")
        except WeightsError:
            continue
        safetensors.deserialize(candidate)
        assert header.data_begin <= len(candidate)


@pytest.mark.parametrize("padding", range(4))
def test_unaligned_offsets_are_read_exactly(padding: int, tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4")
    content = valid_file(
        {"odd": ("U8", [1], b"\7"), "a": ("F32", [2, 3], values.tobytes())}, padding=padding
    )
    with SafetensorsFile(write(tmp_path / "a.safetensors", content)) as file:
        view = file.read("a")
        assert view.readonly
        assert (view.format, view.ndim, view.nbytes) == ("B", 1, 24)
        np.testing.assert_array_equal(np.frombuffer(bytes(view), "<f4"), values)
        assert file.tensors["a"].begin == 8 + struct.unpack_from("<Q", content)[0] + 1
    assert {(file.tensors["a"].begin + shift) % 4 for shift in range(4)} == {0, 1, 2, 3}


def test_scalars_empty_tensors_and_metadata(tmp_path: Path) -> None:
    content = valid_file(
        {
            "empty first": ("F32", [0], b""),
            "scalar": ("F32", [], struct.pack("<f", 1.5)),
            "empty": ("I64", [3, 0, 5], b""),
            "empty of huge shape": ("F32", [0, 2**62], b""),
            "": ("U8", [1], b"\1"),
            '日本 "quoted"': ("BOOL", [1], b"\1"),
        },
        metadata={"format": "pt"},
    )
    with SafetensorsFile(write(tmp_path / "a.safetensors", content)) as file:
        assert file.metadata == {"format": "pt"}
        assert struct.unpack("<f", file.read("scalar")) == (1.5,)
        assert file.tensors["scalar"].shape == ()
        assert file.tensors["empty"].shape == (3, 0, 5)
        assert file.read("empty").nbytes == file.tensors["empty"].nbytes == 0
        assert bytes(file.read("")) == b"\1"
        assert bytes(file.read('日本 "quoted"')) == b"\1"


def test_file_without_tensors(tmp_path: Path) -> None:
    with SafetensorsFile(write(tmp_path / "a.safetensors", json_file({}))) as file:
        assert dict(file.tensors) == {}


def test_order_of_the_header_does_not_matter(tmp_path: Path) -> None:
    content = json_file({"late": tensor(2, 4), "early": tensor(0, 2)}, b"abcd")
    with SafetensorsFile(write(tmp_path / "a.safetensors", content)) as file:
        assert list(file.tensors) == ["early", "late"]
        assert bytes(file.read("late")) == b"cd"


def test_views_outlive_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", valid_file({"a": ("U8", [4], b"abcd")}))
    file = SafetensorsFile(path)
    view = file.read("a")
    file.close()
    file.close()
    assert bytes(view) == b"abcd"
    with pytest.raises(WeightsError, match="'a' was read after the file was closed"):
        file.read("a")
    del file
    gc.collect()
    assert bytes(view) == b"abcd"
    view.release()


def test_map_goes_away_on_close(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", valid_file({"a": ("U8", [4], b"abcd")}))
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list its maps")
    file = SafetensorsFile(path)
    view = file.read("a")
    assert str(path) in maps.read_text()
    file.close()
    assert str(path) in maps.read_text()
    view.release()
    gc.collect()
    assert str(path) not in maps.read_text()


def test_refused_file_is_not_kept_open(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.safetensors", json_file({"a": tensor(0, 9)}, bytes(4)))
    before = sorted(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with pytest.raises(WeightsError):
        SafetensorsFile(path)
    gc.collect()
    if before is not None:
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_reading_is_no_copy(tmp_path: Path) -> None:
    """A 100 MB file, sparse on disk: neither opening nor reading takes memory for it."""
    size = 100_000_000
    header = json.dumps({"a": tensor(0, size - 4, [size - 4]), "b": tensor(size - 4, size)})
    path = tmp_path / "big.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header.encode())
        stream.seek(size - 1, os.SEEK_CUR)
        stream.write(b"\x2a")
    tracemalloc.start()
    try:
        with SafetensorsFile(path) as file:
            views = [file.read(name) for name in file.tensors]
            assert sum(view.nbytes for view in views) == size
            assert views[1][3] == 0x2A
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_length_attack_allocates_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", struct.pack("<Q", 99_999_999) + b"{}")
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            SafetensorsFile(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors: cannot be read: No such file"):
        SafetensorsFile(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="not a regular file"):
        SafetensorsFile(tmp_path)
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(WeightsError, match="not a regular file"):
        SafetensorsFile(pipe)


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", json_file({}))
    with SafetensorsFile(path) as file, pytest.raises(WeightsError, match="no tensor 'wte'"):
        file.read("wte")
