"""Reading and writing of vocabulary and merges files."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from gpt2_wgpu import file_signatures, small_files, strict_json
from gpt2_wgpu.errors import TokenizerError, WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.byte_symbols import SYMBOL_TO_BYTE
from gpt2_wgpu.text.merge_table import Merge
from gpt2_wgpu.weights.writer import AtomicFile

StrPath = str | os.PathLike[str]


class StoredVocabulary(dict[str, int]):
    """A vocabulary with the path of its file, for error messages."""

    def __init__(self, ids: Mapping[str, int], where: str) -> None:
        super().__init__(ids)
        self.where = where


class StoredMerges(list[Merge]):
    """Merges with the path of their file and whether each is one line, for error messages."""

    def __init__(self, merges: Iterable[Merge], where: str, *, lines: bool) -> None:
        super().__init__(merges)
        self.where = where
        self._lines = lines

    def place(self, index: int) -> str:
        """Return the location of a merge for messages: the file, and the line if there is one."""
        return f"{self.where}, line {index + 1}" if self._lines else self.where


def gpt2_merges() -> list[str]:
    """Return the 50,000 merges of OpenAI's GPT-2, from the package's data."""
    packed = resources.files("gpt2_wgpu.text").joinpath("data", "gpt2_merges.txt.gz").read_bytes()
    return _lines(gzip.decompress(packed).decode("utf-8"))[1:]


def vocabulary_of_merges(merges: Iterable[str], end_token: str) -> dict[str, int]:
    """Return the vocabulary of a list of merges, in GPT-2's order.

    256 byte symbols, then the result of each merge, then ``end_token``.
    """
    tokens = [*SYMBOL_TO_BYTE, *(merge.replace(" ", "") for merge in merges), end_token]
    return {token: token_id for token_id, token in enumerate(tokens)}


def read_vocabulary(path: StrPath) -> StoredVocabulary:
    """Read a JSON object, token → id.

    Raises:
        TokenizerError: the file is missing, not a JSON object, or repeats a token.
    """
    where = os.fspath(path)
    return StoredVocabulary(_object(read_json(path), where), where)


def read_merges(path: StrPath) -> StoredMerges:
    """Read one merge per line; trailing blank lines are ignored.

    Raises:
        TokenizerError: the file is missing, another kind of file, or not UTF-8.
    """
    return StoredMerges(_lines(_read_text(path, "merges")), os.fspath(path), lines=True)


def read_json(path: StrPath) -> Any:
    """Read a JSON file; TokenizerError if it is missing, too large, malformed or repeats a key."""
    try:
        return strict_json.parse(_read(path))
    except TokenizerError:
        raise
    except ValueError as error:
        raise TokenizerError(f"{os.fspath(path)}: {error}") from None


def checked_path(path: object) -> str:
    """Return the path of a directory, with ``~`` expanded; TokenizerError if it is not valid."""
    if not isinstance(path, (str, os.PathLike)):
        raise TokenizerError(f"the path of a directory must be a str or a Path, not {shown(path)}")
    text = os.fsdecode(path)
    if not text.strip():
        raise TokenizerError(f"the path of a directory must not be empty: {shown(text)}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise TokenizerError(f"a path cannot contain a lone surrogate: {shown(text)}") from None
    if "\0" in text:
        raise TokenizerError(f"a path cannot contain a NUL character: {shown(text)}")
    return os.path.expanduser(text)


def write_assets(
    dir_path: StrPath, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]
) -> None:
    """Write ``vocabulary.json`` and ``merges.txt`` into a directory, each atomically.

    Raises:
        TokenizerError: the directory does not exist or cannot be written.
    """
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    write_whole(Path(dir_path, "vocabulary.json"), json.dumps(vocabulary, ensure_ascii=False))
    write_whole(Path(dir_path, "merges.txt"), "\n".join(lines) + "\n")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} must hold a JSON object, not a {type(value).__name__}")
    return value


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also cuts at characters that may be part of a token.
    content = text.rstrip("\r\n")
    return [line.removesuffix("\r") for line in content.split("\n")] if content else []


def _read_text(path: StrPath, wanted: str) -> str:
    content = _read(path)
    if fault := file_signatures.fault(content, wanted):
        raise TokenizerError(f"{os.fspath(path)}: {fault}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{os.fspath(path)}: not UTF-8 at byte {error.start}; download it again"
        ) from None


def _read(path: StrPath) -> bytes:
    try:
        return small_files.read(path)
    except OSError as error:
        raise TokenizerError(f"cannot read {os.fspath(path)}: {error.strerror}") from None
    except ValueError as error:
        raise TokenizerError(f"{os.fspath(path)}: {error}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically; TokenizerError if that fails."""
    try:
        with AtomicFile(path) as file:
            file.write(text.encode())
    except WeightsError as error:
        raise TokenizerError(str(error)) from None
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise TokenizerError(f"cannot write {shown(str(path))}: {error}") from None
