"""GPT2CausalLMPreprocessor: training rows, prompts, and decoding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, ShapeError, TokenizerError
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer

EOT = 50256
HELLO, WORLD = 15496, 995


@pytest.fixture
def preprocessor(gpt2: GPT2Tokenizer) -> GPT2CausalLMPreprocessor:
    return GPT2CausalLMPreprocessor(gpt2, sequence_length=6)


def test_training_rows_are_shifted_by_one(preprocessor: GPT2CausalLMPreprocessor) -> None:
    x, y, weights = preprocessor("Hello world")
    assert x["token_ids"].dtype == y.dtype == np.int32
    assert x["padding_mask"].dtype == weights.dtype == np.bool_
    assert x["token_ids"].tolist() == [EOT, HELLO, WORLD, EOT, 0, 0]
    assert x["padding_mask"].tolist() == [True] * 4 + [False] * 2
    assert y.tolist() == [HELLO, WORLD, EOT, 0, 0, 0]
    assert weights.tolist() == [True] * 3 + [False] * 3


def test_training_batch_is_cut_to_length(preprocessor: GPT2CausalLMPreprocessor) -> None:
    x, y, weights = preprocessor.call(["Hello", "Hello" + " world" * 9], sequence_length=3)
    assert x["token_ids"].tolist() == [[EOT, HELLO, EOT], [EOT, HELLO, WORLD]]
    assert y.tolist() == [[HELLO, EOT, 0], [HELLO, WORLD, EOT]]
    assert weights.tolist() == [[True, True, False], [True] * 3]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (False, False, [HELLO, 0, 0, 0, 0, 0]),
        (True, False, [EOT, HELLO, 0, 0, 0, 0]),
        (False, True, [HELLO, EOT, 0, 0, 0, 0]),
    ],
)
def test_start_and_end_tokens_are_optional(
    gpt2: GPT2Tokenizer, start: bool, end: bool, expected: list[int]
) -> None:
    preprocessor = GPT2CausalLMPreprocessor(gpt2, 6, add_start_token=start, add_end_token=end)
    assert preprocessor("Hello")[0]["token_ids"].tolist() == expected


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_given_targets_are_ignored_with_a_warning(
    preprocessor: GPT2CausalLMPreprocessor, name: str
) -> None:
    with pytest.warns(UserWarning, match="ignored"):
        _, y, _ = preprocessor("Hello", **{name: [1]})  # type: ignore[arg-type]
    assert y.tolist() == [HELLO, EOT, 0, 0, 0, 0]


def test_prompts_start_but_do_not_end(preprocessor: GPT2CausalLMPreprocessor) -> None:
    one = preprocessor.generate_preprocess("Hello world")
    assert one["token_ids"].tolist() == [EOT, HELLO, WORLD, 0, 0, 0]
    assert one["padding_mask"].tolist() == [True] * 3 + [False] * 3
    assert one["token_ids"].dtype == np.int32 and one["padding_mask"].dtype == np.bool_
    several = preprocessor.generate_preprocess(["Hello world", "Hello"], sequence_length=3)
    assert several["token_ids"].tolist() == [[EOT, HELLO, WORLD], [EOT, HELLO, 0]]
    assert several["padding_mask"].tolist() == [[True] * 3, [True, True, False]]


def test_add_start_token_false_is_obeyed_for_prompts(gpt2: GPT2Tokenizer) -> None:
    preprocessor = GPT2CausalLMPreprocessor(gpt2, 4, add_start_token=False)
    assert preprocessor.generate_preprocess("Hello")["token_ids"].tolist() == [HELLO, 0, 0, 0]
    assert preprocessor.encode_prompts(["Hello", ""]) == [[HELLO], [EOT]]
    empty = preprocessor.generate_preprocess("")
    assert empty["token_ids"].tolist() == [EOT, 0, 0, 0]
    assert empty["padding_mask"].tolist() == [True, False, False, False]


def test_encode_prompts_gives_lists(preprocessor: GPT2CausalLMPreprocessor) -> None:
    rows = preprocessor.encode_prompts(["Hello world", "", "a<|endoftext|>"])
    assert rows == [[EOT, HELLO, WORLD], [EOT], [EOT, 64, 27, 91, 437, 1659, 5239, 91, 29]]
    assert all(type(entry) is int for row in rows for entry in row)


def test_encoding_does_not_spoil_the_word_cache(gpt2: GPT2Tokenizer) -> None:
    preprocessor = GPT2CausalLMPreprocessor(gpt2, 8)
    assert [preprocessor.encode_prompts(["Hello"]) for _ in range(3)] == [[[EOT, HELLO]]] * 3


def test_a_prompt_that_does_not_fit_is_an_error(preprocessor: GPT2CausalLMPreprocessor) -> None:
    fits = "Hello world world world world"
    assert preprocessor.generate_preprocess(fits)["padding_mask"].all()
    with pytest.raises(ContextLengthError, match=r"prompt 1 has 7 tokens .* only 6 fit"):
        preprocessor.generate_preprocess(["Hello", fits + " world"])
    with pytest.raises(ContextLengthError, match=r"the prompt has 6 tokens .* only 5 fit"):
        preprocessor.generate_preprocess(fits, sequence_length=5)


def test_sequence_length_can_be_set(preprocessor: GPT2CausalLMPreprocessor) -> None:
    preprocessor.sequence_length = 3
    assert preprocessor.sequence_length == 3
    assert preprocessor.generate_preprocess("Hello")["token_ids"].shape == (3,)
    bad: Any
    for bad in (0, -1, 2.0, True, "3"):
        with pytest.raises(InvalidArgumentError, match="sequence_length"):
            preprocessor.sequence_length = bad
        with pytest.raises(InvalidArgumentError, match="sequence_length"):
            preprocessor.generate_preprocess("Hello", sequence_length=bad)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_postprocess_drops_padding_and_special_tokens(
    preprocessor: GPT2CausalLMPreprocessor, as_numpy: bool
) -> None:
    convert: Any = np.array if as_numpy else list
    ids, mask = [EOT, HELLO, EOT, 0, WORLD, 0], [1, 1, 1, 1, 1, 0]
    one = {"token_ids": convert(ids), "padding_mask": convert(mask)}
    assert preprocessor.generate_postprocess(one) == "Hello! world"  # id 0 is "!", an ordinary one
    two = {"token_ids": convert([ids, ids]), "padding_mask": convert([mask, [0] * 6])}
    assert preprocessor.generate_postprocess(two) == ["Hello! world", ""]


def test_there_and_back(preprocessor: GPT2CausalLMPreprocessor) -> None:
    texts = ["Hello\n\nHello", "", " 日本"]
    there = preprocessor.generate_preprocess(texts)
    assert preprocessor.generate_postprocess(there) == texts


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ({"token_ids": [1]}, InvalidArgumentError),
        ({"token_ids": [1, 2], "padding_mask": [True]}, ShapeError),
        ({"token_ids": [[1], [2]], "padding_mask": [[True]]}, ShapeError),
        ({"token_ids": [1.5], "padding_mask": [True]}, InvalidArgumentError),
        ({"token_ids": [60_000], "padding_mask": [True]}, TokenizerError),
    ],
)
def test_bad_output_is_refused(
    preprocessor: GPT2CausalLMPreprocessor, x: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        preprocessor.generate_postprocess(x)


@pytest.mark.parametrize("bad", [3, None, [3], [["Hello"]], b"Hello"])
def test_what_is_no_text_is_refused(preprocessor: GPT2CausalLMPreprocessor, bad: Any) -> None:
    for method in (preprocessor, preprocessor.generate_preprocess, preprocessor.encode_prompts):
        with pytest.raises(InvalidArgumentError):
            method(bad)


def test_an_empty_batch(preprocessor: GPT2CausalLMPreprocessor) -> None:
    assert preprocessor.encode_prompts([]) == []
    for method in (preprocessor, preprocessor.generate_preprocess):
        with pytest.raises(InvalidArgumentError, match="at least one text"):
            method([])


def test_inputs_and_targets_do_not_share_memory(preprocessor: GPT2CausalLMPreprocessor) -> None:
    x, y, weights = preprocessor("Hello world")
    x["token_ids"][:] = 7
    x["padding_mask"][:] = False
    assert y.tolist() == [HELLO, WORLD, EOT, 0, 0, 0]
    assert weights.tolist() == [True] * 3 + [False] * 3


def test_config_round_trip() -> None:
    tokenizer = GPT2Tokenizer({"a": 0, "<|endoftext|>": 1}, [])
    preprocessor = GPT2CausalLMPreprocessor(tokenizer, 7, add_start_token=False)
    config = json.loads(json.dumps(preprocessor.get_config()))
    again = GPT2CausalLMPreprocessor.from_config(config)
    assert again.get_config() == preprocessor.get_config()
    assert again.encode_prompts(["aa"]) == [[0, 0]]
