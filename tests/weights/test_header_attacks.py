"""Malicious and damaged safetensors files: each is rejected with a specific message."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import safetensors

from gpt2_wgpu import strict_json
from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.weights.header import MAX_HEADER_BYTES, header_length, parse_header
from gpt2_wgpu.weights.safetensors import SafetensorsFile
from tests.weights.attacks import ATTACKS, OTHER_KINDS
from tests.weights.building import json_file, raw_file, tensor, valid_file, write


@pytest.mark.parametrize("case", ATTACKS)
def test_attack_is_refused_by_name(case: str, tmp_path: Path) -> None:
    content, message = ATTACKS[case]
    path = write(tmp_path / "attack.safetensors", content)
    with pytest.raises(WeightsError, match=message) as caught:
        SafetensorsFile(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 600 + len(str(path))
    text.encode()  # printable: no lone surrogate gets as far as a terminal


@pytest.mark.parametrize("case", OTHER_KINDS)
def test_other_kinds_of_file_are_told_apart(case: str, tmp_path: Path) -> None:
    content, message = OTHER_KINDS[case]
    path = write(tmp_path / "model.safetensors", content)
    with pytest.raises(WeightsError, match=message):
        SafetensorsFile(path)


@pytest.mark.parametrize("case", ["Git LFS pointer", "web page", "PyTorch zip", "Keras HDF5"])
def test_eight_bytes_are_enough_to_tell_the_kind(case: str) -> None:
    content, message = OTHER_KINDS[case]
    with pytest.raises(WeightsError, match=message):
        header_length(content[:8], 10**9, "stream")


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x227B, 0x3C, 0x213C])
def test_a_length_that_looks_like_another_kind_is_a_length(length: int) -> None:
    """640 = 80 02: the start of a pickle, but also the length of many a header."""
    assert header_length(struct.pack("<Q", length), 10**6, "file") == length
    with pytest.raises(WeightsError, match=f"header length {length:,} does not fit"):
        header_length(struct.pack("<Q", length), 20, "file")


def test_header_length_of_the_limit_is_allowed() -> None:
    prefix = struct.pack("<Q", MAX_HEADER_BYTES)
    assert header_length(prefix, MAX_HEADER_BYTES + 8, "file") == MAX_HEADER_BYTES


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = valid_file({"a": ("F32", [2, 3], bytes(24)), "b": ("F16", [5], bytes(10))})
    for size in range(len(whole)):
        with pytest.raises(WeightsError):
            parse_header(whole[:size], size, "cut")
    assert len(parse_header(whole, len(whole), "whole").tensors) == 2


def test_parser_needs_the_header_only() -> None:
    whole = valid_file({"a": ("F32", [2, 3], bytes(24))})
    end = 8 + header_length(whole[:8], len(whole), "stream")
    header = parse_header(memoryview(whole)[:end], len(whole), "stream")
    assert header.data_begin == end
    assert header.tensors["a"].end == len(whole)
    with pytest.raises(InvalidArgumentError, match=f"needs the first {end} bytes of stream"):
        parse_header(whole[: end - 1], len(whole), "stream")
    with pytest.raises(InvalidArgumentError, match="needs 8 bytes of stream, got 5"):
        header_length(whole[:5], len(whole), "stream")


def test_huge_names_stay_short_in_messages() -> None:
    content = json_file({"x" * 100_000: tensor(0, 4, [5])}, bytes(4))
    with pytest.raises(WeightsError) as caught:
        parse_header(content, len(content), "file")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_is_nested_64_deep_at_most(opening: str, closing: str) -> None:
    strict_json.parse((opening * 64 + "1" + closing * 64).encode())
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json.parse((opening * 65 + "1" + closing * 65).encode())


def test_recursion_limit_of_the_caller_does_not_matter() -> None:
    """A caller that has raised the limit gets the same refusal, not a crash."""
    limit = sys.getrecursionlimit()
    content = ATTACKS["nested lists"][0]
    try:
        sys.setrecursionlimit(50_000)
        with pytest.raises(WeightsError, match="nested too deeply"):
            parse_header(content, len(content), "file")
    finally:
        sys.setrecursionlimit(limit)


def test_the_attacks_are_no_valid_files_that_we_refuse_by_mistake() -> None:
    """The reference reader rejects them, too, except for the known differences."""
    accepted = set()
    for case, (content, _) in ATTACKS.items():
        try:
            safetensors.deserialize(content)
        except Exception:  # its own exception class, and UnicodeDecodeError
            continue
        accepted.add(case)
    assert accepted <= {
        "entry with a fourth key",
        "leading space",
        "metadata null",
        "trailing newline",
        "trailing tab after spaces",
        "tensor twice",
        "tensor twice, once escaped",
        "metadata key twice",
    }


def test_valid_header_as_json_survives_any_key_order() -> None:
    header = {"a": tensor(4, 8), "b": tensor(0, 4)}
    for text in (
        json.dumps(header),
        json.dumps(header, indent=1),
        json.dumps(header, sort_keys=True),
    ):
        content = raw_file(text.encode(), bytes(8))
        assert list(parse_header(content, len(content), "file").tensors) == ["b", "a"]
