"""Invalid tokenizer files: the message names the file, the location and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text import BytePairTokenizer, GPT2Tokenizer

VOCABULARY = '{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1042301\n"
PAGE = "<!DOCTYPE html><html><body>404</body></html>"
EMPTY = "{path}: the file is empty (0 bytes); download it again"


def refusal(directory: Path) -> str:
    """The one-line error of the tokenizer of a directory."""
    with pytest.raises(TokenizerError) as caught:
        GPT2Tokenizer.from_directory(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a sound tokenizer."""
    (tmp_path / "vocab.json").write_text(VOCABULARY)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert GPT2Tokenizer.from_directory(tmp_path)("ab") == [2]
    return tmp_path


@pytest.mark.parametrize(
    "name", ["vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json"]
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            POINTER,
            "{path}: this is a Git LFS pointer, not {wanted}; run 'git lfs pull' in its directory",
        ),
        (
            PAGE,
            "{path}: this is a web page, not {wanted}; check the address and your access, then "
            "download it again",
        ),
        ("", EMPTY),
    ],
)
def test_another_kind_of_file(name: str, content: str, message: str, directory: Path) -> None:
    (directory / name).write_text(content)
    wanted = "merges" if name == "merges.txt" else "JSON"
    assert refusal(directory) == message.format(path=directory / name, wanted=wanted)


@pytest.mark.parametrize(
    ("version", "merges", "line", "message"),
    [
        ("#version: 0.2\n", "a b\na c\n", 3, "merge 1 ('a' + 'c') needs the token 'c', which"),
        ("", "a b\na c\n", 2, "merge 1 ('a' + 'c') needs the token 'c', which"),
        ("#version: 0.2\n", "a b\na b\n", 3, "merge 1 ('a' + 'b') is listed twice"),
        ("#version: 0.2\n", "a b c\n", 2, "a merge must be two tokens"),
        ("#version: 0.2\n", "\na b\n", 2, "a merge must be two tokens"),
        ("", '{"error": "not found"}', 0, "this is JSON text, perhaps a server's error message"),
    ],
)
def test_a_merge_is_named_with_its_line(
    version: str, merges: str, line: int, message: str, directory: Path
) -> None:
    path = directory / "merges.txt"
    path.write_text(version + merges)
    where = f"{path}, line {line}" if line else str(path)
    assert refusal(directory).startswith(f"{where}: {message}")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ('{"a": 0, "b": 0}', "the vocabulary gives id 0 to both 'a' and 'b'"),
        ('{"a": -1}', "the vocabulary gives token 'a' the id -1"),
        ('{"\\ud800": 0}', "lone surrogate in string '\\ud800'"),
    ],
)
def test_a_vocabulary_is_named(vocabulary: str, message: str, directory: Path) -> None:
    path = directory / "vocab.json"
    path.write_text(vocabulary)
    assert refusal(directory).startswith(f"{path}: {message}")
    with pytest.raises(TokenizerError) as caught:
        BytePairTokenizer(path, [], special_tokens=["<|endoftext|>"])
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_special_token_is_named_with_the_file(directory: Path) -> None:
    path = directory / "vocab.json"
    path.write_text('{"a": 0}')
    with pytest.raises(TokenizerError) as caught:
        BytePairTokenizer(path, [], special_tokens=["<|endoftext|>"])
    assert str(caught.value).startswith(f"{path}: cannot find token '<|endoftext|>'")


def test_added_tokens_are_named_too(directory: Path) -> None:
    (directory / "added_tokens.json").write_text('{"<new>": 1}')
    assert refusal(directory) == (
        f"{directory / 'vocab.json'} with added_tokens.json: the vocabulary gives id 1 to both "
        "'b' and '<new>'"
    )


def test_a_tokenizer_json_is_named_as_a_whole(directory: Path) -> None:
    path = directory / "tokenizer.json"
    model = '{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": %s, "merges": %s}}'
    path.write_text(model % (VOCABULARY, '["a b", "a c"]'))
    assert refusal(directory).startswith(f"{path}: merge 1 ('a' + 'c') needs the token 'c'")
    path.write_text(model % ('{"a": -1}', "[]"))
    assert refusal(directory).startswith(f"{path}: the vocabulary gives token 'a' the id -1")


def test_what_came_from_no_file_names_none() -> None:
    with pytest.raises(TokenizerError, match=r"^merge 0 "):
        BytePairTokenizer({"a": 0}, ["a b"])
    with pytest.raises(TokenizerError, match=r"^the vocabulary gives id 0 "):
        BytePairTokenizer({"a": 0, "b": 0}, [])
