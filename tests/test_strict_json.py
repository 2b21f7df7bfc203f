"""Malicious JSON: linear time, bounded memory, short messages; and files of any size."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.errors import ConfigError, GPT2WGPUError, TokenizerError, WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.text.tokenizer_files import read_json, read_merges, read_vocabulary
from gpt2_wgpu.weights.checkpoint import shard_names

SIZE = 2_000_000
TEXTS = {
    "spaces": b'{"a":1' + b" " * SIZE + b"}",
    "quotes": b"[" + b'"",' * (SIZE // 3) + b'""]',
    "escaped quotes": b'["' + b'\\"' * (SIZE // 2) + b'"]',
    "backslashes": b'["' + b"\\\\" * (SIZE // 2) + b'"]',
    "one string": b'["' + b"a" * SIZE + b'"]',
    "an open string": b'["' + b"a" * SIZE,
    "quotes alone": b'"' * SIZE,
    "braces in a string": b'["' + b"{[" * (SIZE // 2) + b'"]',
}


@pytest.mark.parametrize("name", TEXTS)
def test_memory_is_a_small_multiple_of_the_text(name: str) -> None:
    text = TEXTS[name]
    tracemalloc.start()
    try:
        strict_json.parse(text)
    except ValueError as error:
        assert len(str(error)) < 300
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 32 * SIZE  # 118 a byte once, for spaces


def test_the_number_of_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 1000)
    for text in ("[" + "1," * 998 + "1]", "[" + "[]," * 499 + "1]"):
        strict_json.parse(text.encode())
    for text in ("[" + "1," * 1000 + "1]", "[" + "{}," * 500 + "1]"):
        with pytest.raises(ValueError, match="more than 1,000 values"):
            strict_json.parse(text.encode())
    assert strict_json.parse(b'["' + b"[,{" * 5000 + b'"]') == ["[,{" * 5000]


def test_depth_is_counted_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Chunks may end anywhere: in a string, between \ and the escaped quote."""
    for size in range(1, 12):
        monkeypatch.setattr(strict_json, "_CHUNK", size)
        assert strict_json.parse(rb'["\"[[\\", {"\\\"": ["]"]}]') == ['"[[\\', {'\\"': ["]"]}]
        text = '["' + r"\\\"[" * 70 + '"]'
        assert strict_json.parse(text.encode()) == ['\\"[' * 70]
        with pytest.raises(ValueError, match="nested too deeply"):
            strict_json.parse(rb'["\\", ' + b"[" * 70 + b"]" * 70 + b"]")


def test_a_key_that_appears_twice_is_found_in_linear_time() -> None:
    keys = [f'"k{i}":{i}' for i in range(100_000)]
    text = "{" + ",".join([*keys, '"k99999":1']) + "}"
    begun = time.perf_counter()
    with pytest.raises(ValueError, match="key 'k99999' appears twice"):
        strict_json.parse(text.encode())
    assert time.perf_counter() - begun < 5  # 100 s once


@pytest.mark.parametrize(
    "text", [r'["\ud800"]', r'{"a": ["\uDFFF"]}', r'"\ud83d x"', r'{"\ud800":1}']
)
def test_lone_surrogates_are_refused_anywhere(text: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate in string"):
        strict_json.parse(text.encode())


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert strict_json.parse(rb'["\ud83d\ude00"]') == ["\U0001f600"]


READERS = {
    "config.json": (GPT2Config.from_json_file, ConfigError),
    "model.safetensors.index.json": (shard_names, WeightsError),
    "tokenizer.json": (read_json, TokenizerError),
    "vocab.json": (read_vocabulary, TokenizerError),
    "merges.txt": (read_merges, TokenizerError),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_too_large_is_not_read(name: str, tmp_path: Path) -> None:
    reader, kind = READERS[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    with pytest.raises(kind, match=r"1,099,511,627,776 bytes is above the limit of 67,108,864"):
        reader(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", READERS)
def test_a_named_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    reader, kind = READERS[name]
    os.mkfifo(tmp_path / name)
    with pytest.raises(kind, match="this is not a regular file"):
        reader(tmp_path / name)


def test_a_file_of_the_largest_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "MAX_BYTES", 2)
    (tmp_path / "a").write_bytes(b"{}")
    assert small_files.read(tmp_path / "a") == b"{}"
    (tmp_path / "a").write_bytes(b"{ }")
    with pytest.raises(ConfigError) as caught:
        GPT2Config.from_json_file(tmp_path / "a")
    assert isinstance(caught.value, GPT2WGPUError)
