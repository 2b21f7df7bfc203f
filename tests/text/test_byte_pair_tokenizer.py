"""BytePairTokenizer: KerasHub's API, errors, files, and speed on adversarial words."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_wgpu.errors import InvalidArgumentError, TokenizerError
from gpt2_wgpu.text import BytePairTokenizer, GPT2Tokenizer, byte_pair_tokenizer
from gpt2_wgpu.text.byte_symbols import GPT2_BYTE_ORDER, SYMBOL_TO_BYTE

MERGES = ["Ġ a", "i r", "Ġa ir", "p o", "r t", "po rt", "a t"]
TOKENS = [*SYMBOL_TO_BYTE, *(merge.replace(" ", "") for merge in MERGES), "<|end|>", "<|end|>s"]
VOCABULARY = {token: token_id for token_id, token in enumerate(TOKENS)}


def small(**kwargs: Any) -> BytePairTokenizer:
    return BytePairTokenizer(VOCABULARY, MERGES, **kwargs)


def tokens_of(tokenizer: BytePairTokenizer, text: str) -> list[str]:
    return [tokenizer.id_to_token(token_id) for token_id in tokenizer.tokenize(text)]


def test_byte_symbols_are_gpt2s() -> None:
    assert list(SYMBOL_TO_BYTE.values()) == list(GPT2_BYTE_ORDER)
    assert sorted(GPT2_BYTE_ORDER) == list(range(256))
    assert SYMBOL_TO_BYTE["Ġ"] == 0x20 and SYMBOL_TO_BYTE["Ċ"] == 0x0A


def test_tokenize_one_and_several() -> None:
    tokenizer = small()
    assert tokens_of(tokenizer, " airport at") == ["Ġair", "port", "Ġa", "t"]
    one = tokenizer.tokenize("airport")
    assert tokenizer(["airport", ""]) == [one, []]
    assert tokenizer(np.array(["airport", ""])) == [one, []]
    assert tokenizer(np.array("airport")) == one


@pytest.mark.parametrize("inputs", [b"air", 3, None, ["air", 3], [["air"]]])
def test_tokenize_refuses_what_is_no_text(inputs: Any) -> None:
    with pytest.raises(TokenizerError):
        small().tokenize(inputs)


def test_sequence_length_cuts_and_pads() -> None:
    tokenizer = small(sequence_length=3)
    ids = small().tokenize("airports")
    assert len(ids) == 4
    assert tokenizer.tokenize("airports") == ids[:3]
    assert tokenizer.tokenize("port") == [VOCABULARY["port"], 0, 0]
    assert tokenizer.encode("airports") == ids


def test_dtype_string_gives_tokens() -> None:
    assert small(dtype="string").tokenize(" airport") == ["Ġair", "port"]


def test_prefix_space_as_in_hugging_face() -> None:
    tokenizer = small(add_prefix_space=True, special_tokens=["<|end|>"])
    assert tokens_of(tokenizer, "air") == ["Ġair"]
    assert tokens_of(tokenizer, " air") == ["Ġair"]
    assert tokenizer.tokenize("") == []
    ids = tokenizer.encode("air<|end|>air", "all")
    assert [tokenizer.id_to_token(i) for i in ids] == ["Ġair", "<|end|>", "Ġair"]


def test_unsplittable_tokens_are_always_whole_and_special_ones_when_allowed() -> None:
    text = "at<|end|>at"
    whole = [VOCABULARY["at"], VOCABULARY["<|end|>"], VOCABULARY["at"]]
    assert small(unsplittable_tokens=["<|end|>"]).encode(text) == whole
    special = small(special_tokens=["<|end|>"])
    assert VOCABULARY["<|end|>"] not in special.encode(text)
    assert special.encode(text, {"<|end|>"}) == whole
    assert special.encode(text, "all") == whole
    assert special.decode(special.encode(text)) == text == special.decode(whole)


def test_the_longest_special_token_wins() -> None:
    tokenizer = small(special_tokens=["<|end|>", "<|end|>s"])
    assert tokenizer.encode("<|end|>s", "all") == [VOCABULARY["<|end|>s"]]


@pytest.mark.parametrize("token", ["<my é>", "<é>", "Ġ"])
def test_a_special_token_keeps_its_text(token: str) -> None:
    vocabulary = {**VOCABULARY, token: VOCABULARY.get(token, len(VOCABULARY))}
    tokenizer = BytePairTokenizer(vocabulary, [], unsplittable_tokens=[token])
    assert tokenizer.decode(tokenizer.encode("a" + token)) == "a" + token


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        (["<x>"], "allowed_special: '<x>' is not in the vocabulary; its special tokens are: none"),
        ("x", "allowed_special must be \"all\" or a list of special tokens, not 'x'"),
    ],
)
def test_messages_about_allowed_special(allowed: Any, message: str) -> None:
    with pytest.raises(TokenizerError) as found:
        small().encode("a", allowed)
    assert str(found.value) == message


def test_unknown_special_tokens_are_refused() -> None:
    with pytest.raises(TokenizerError, match="<nope>"):
        small().encode("air", {"<nope>"})
    with pytest.raises(TokenizerError, match="<nope>"):
        small(unsplittable_tokens=["<nope>"])
    for bad in ("<|end|>", [""], [3], 3):
        with pytest.raises(TokenizerError, match="special_tokens"):
            small(special_tokens=bad)
    with pytest.raises(TokenizerError, match="allowed_special"):
        small().encode("air", "every")


@pytest.mark.parametrize(
    "options", [{"dtype": "float32"}, {"sequence_length": 0}, {"sequence_length": True}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match=next(iter(options))):
        small(**options)


def test_lookups() -> None:
    tokenizer = small()
    assert tokenizer.vocabulary_size() == len(VOCABULARY) == len(tokenizer.get_vocabulary())
    assert tokenizer.token_to_id("Ġair") == VOCABULARY["Ġair"]
    numpy_id: Any = np.int64(256)
    assert tokenizer.id_to_token(numpy_id) == "Ġa"
    with pytest.raises(TokenizerError, match="' air'"):
        tokenizer.token_to_id(" air")
    for bad in (-1, len(VOCABULARY)):
        with pytest.raises(TokenizerError, match=str(bad)):
            tokenizer.id_to_token(bad)
    with pytest.raises(InvalidArgumentError):
        tokenizer.id_to_token(True)


@pytest.mark.parametrize(
    ("vocabulary", "named"),
    [
        ({"a": 0, "b": 0}, "'b'"),
        ({"a": -1}, "-1"),
        ({"a": True}, "True"),
        ({"a": 1.0}, "1.0"),
        ({"a": 2**31}, str(2**31)),
        ({1: 1}, "1"),
        ({"a\ud800": 1}, "surrogate"),
        (["a"], "list"),
    ],
)
def test_bad_vocabularies_are_refused(vocabulary: Any, named: str) -> None:
    with pytest.raises(TokenizerError, match=named):
        BytePairTokenizer(vocabulary, [])


def test_a_byte_outside_the_vocabulary_is_an_error() -> None:
    tokenizer = BytePairTokenizer({"a": 0, "b": 1}, [])
    assert tokenizer.encode("ba") == [1, 0]
    with pytest.raises(TokenizerError, match="0xC3"):
        tokenizer.encode("aé")


@pytest.mark.parametrize("text", ["ab\ud83d", "ab\udc00cd"])
def test_a_lone_surrogate_is_an_error_with_its_position(text: str) -> None:
    with pytest.raises(TokenizerError, match=r"U\+D[8C]3?[0D]?[0D]?.* at position 2"):
        small(add_prefix_space=True).encode(text)


def test_detokenize_takes_ids_of_any_kind() -> None:
    tokenizer = small()
    ids = tokenizer.tokenize(" airport")
    assert tokenizer.detokenize(ids) == " airport"
    assert tokenizer.detokenize(tuple(ids)) == " airport"
    assert tokenizer.detokenize(np.array(ids, dtype=np.uint16)) == " airport"
    assert tokenizer.detokenize([np.int32(i) for i in ids]) == " airport"
    assert tokenizer.detokenize([ids, ids[:1], []]) == [" airport", " air", ""]
    assert tokenizer.detokenize(np.array([ids, ids])) == [" airport"] * 2
    assert tokenizer.detokenize(ids[0]) == tokenizer.detokenize(np.int64(ids[0])) == " air"
    assert tokenizer.detokenize([]) == ""


@pytest.mark.parametrize("bad", [[1.0], [True], True, 1.5, "air", [["a"]], [[[1]]], np.ones(2)])
def test_detokenize_refuses_what_is_no_id(bad: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        small().detokenize(bad)


@pytest.mark.parametrize("bad", [[5, 99_999], [[1], [99_999]], [-99_999], np.array([99_999])])
def test_detokenize_names_an_id_out_of_range(bad: Any) -> None:
    with pytest.raises(TokenizerError, match="99999"):
        small().detokenize(bad)


def test_decode_errors() -> None:
    tokenizer = small()
    cut = tokenizer.encode("é")[:1]
    assert tokenizer.decode(cut) == "\ufffd"
    assert tokenizer.decode_bytes(cut) == b"\xc3"
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode(cut, errors="strict")
    with pytest.raises(TokenizerError, match="detokenize"):
        tokenizer.decode([cut, cut])


@given(st.text())
def test_any_text_survives(text: str) -> None:
    tokenizer = SHARED
    assert tokenizer.decode(tokenizer.encode(text), errors="strict") == text


SHARED = small()


def test_files_round_trip(tmp_path: Path) -> None:
    tokenizer = small(unsplittable_tokens=["<|end|>"])
    tokenizer.save_assets(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocabulary.json"]
    read = BytePairTokenizer(str(tmp_path / "vocabulary.json"), tmp_path / "merges.txt")
    assert read.get_vocabulary() == VOCABULARY
    assert read.get_config()["merges"] == MERGES
    other = BytePairTokenizer({"a": 0}, [])
    other.load_assets(tmp_path)
    assert other.encode(" airport") == tokenizer.encode(" airport")


def test_config_round_trip_through_json() -> None:
    tokenizer = small(sequence_length=5, add_prefix_space=True, unsplittable_tokens=["<|end|>"])
    config = json.loads(json.dumps(tokenizer.get_config()))
    assert BytePairTokenizer.from_config(config).get_config() == tokenizer.get_config()
    assert BytePairTokenizer.from_config(config)("at<|end|>") == tokenizer("at<|end|>")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"a": 0, "a": 1}', "twice"),
        ("{", "JSON"),
        ("[]", "list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 5_000 + "}", "integer of 5000 digits"),
    ],
)
def test_malformed_vocabulary_files_are_refused(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(TokenizerError, match=named):
        BytePairTokenizer(tmp_path / "vocab.json", [])


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no\.json"):
        BytePairTokenizer(tmp_path / "no.json", [])
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe a\n")
    with pytest.raises(TokenizerError, match="UTF-8"):
        BytePairTokenizer(VOCABULARY, tmp_path / "merges.txt")
    with pytest.raises(TokenizerError, match="cannot be written"):
        small().save_assets(tmp_path / "missing")
    saved = tmp_path / "saved"
    (saved / "merges.txt").mkdir(parents=True)
    with pytest.raises(TokenizerError, match=r"merges\.txt: cannot be written"):
        small().save_assets(saved)
    assert {path.name for path in saved.iterdir()} == {"merges.txt", "vocabulary.json"}


def test_merges_file_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_bytes("#version: 0.2\r\nĠ a\r\ni r\r\n\r\n".encode())
    tokenizer = BytePairTokenizer(VOCABULARY, tmp_path / "merges.txt")
    assert tokenizer.get_config()["merges"] == ["Ġ a", "i r"]
    (tmp_path / "merges.txt").write_bytes(b"\n")
    assert BytePairTokenizer(VOCABULARY, tmp_path / "merges.txt").get_config()["merges"] == []


def test_the_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_pair_tokenizer, "CACHED_WORDS", 8)
    tokenizer = small()
    words = [f" {chr(97 + i % 26)}{'x' * (i // 26)}" for i in range(200)]
    expected = [small().encode(word) for word in words]
    assert [tokenizer.encode(word) for word in words] == expected
    tokenizer.encode("a" * 10_000)
    assert len(tokenizer._words) <= 8
    assert max(map(len, tokenizer._words)) < 10_000


@pytest.mark.parametrize("kind", ["one letter", "random letters"])
@pytest.mark.slow
def test_a_megabyte_without_a_break_takes_seconds(gpt2: GPT2Tokenizer, kind: str) -> None:
    letters = "a" if kind == "one letter" else "etaoinshrdlu"
    text = "".join(random.Random(5).choices(letters, k=1_000_000))
    start = time.process_time()
    ids = gpt2.encode(text)
    assert time.process_time() - start < 20  # 2 s on a Xeon core; a quadratic loop takes hours
    assert gpt2.decode(ids) == text


def test_a_megabyte_of_words_takes_a_second(gpt2: GPT2Tokenizer) -> None:
    rng = random.Random(6)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(1, 9))) for _ in range(20_000)]
    often = [1 / (rank + 1) for rank in range(len(words))]  # as in English, by Zipf's law
    text = " ".join(rng.choices(words, often, k=230_000))[:1_000_000]
    fresh = GPT2Tokenizer()
    start = time.process_time()
    ids = fresh.encode(text)
    assert time.process_time() - start < 1  # 0.3 s on a Xeon core
    assert fresh.decode(ids) == text
