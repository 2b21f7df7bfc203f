"""Values in messages: short and fast for any value."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import GPT2WGPUError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.text import StopTextMatcher
from gpt2_wgpu.validation import integer, number


class Words(list[str]):
    pass


class Text(str):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any


HUGE: list[Any] = [
    "x" * 10**7,
    b"x" * 10**7,
    bytearray(10**7),
    10**5000,
    [[["deep"] * 1000] * 1000] * 1000,
    {str(i): i for i in range(10**5)},
    {"a": {"b": {"c": {"d": {"e": "f" * 10**6}}}}},
    tuple(range(10**6)),
    OrderedDict.fromkeys(range(10**5)),
    Words(["x"] * 10**6),
    Text("x" * 10**7),
    Pair("x" * 10**7, ["x"] * 10**6),
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
def test_a_value_takes_120_characters_at_most(value: Any) -> None:
    begun = time.perf_counter()
    assert len(shown(value)) <= 120
    assert "\n" not in shown(value)
    assert time.perf_counter() - begun < 0.5


class Counted:
    written = 0

    def __repr__(self) -> str:
        Counted.written += 1
        return "counted"


class Row(tuple[Any, ...]):
    pass


@pytest.mark.parametrize("kind", [list, Words, tuple, Row, dict.fromkeys, OrderedDict.fromkeys])
def test_only_a_part_of_a_long_value_is_written_out(kind: Any) -> None:
    Counted.written = 0
    assert "counted" in shown(kind([Counted() for _ in range(1000)]))
    assert Counted.written < 10


@pytest.mark.parametrize("value", [None, True, -1, 0.5, "a'b", [1, 2], {"a": None}, b"ab", ()])
def test_a_short_value_is_its_repr(value: Any) -> None:
    assert shown(value) == repr(value)


def test_lists_of_names_are_short() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a"] * 8, 3) == "a, a, a, ... (5 more)"
    assert len(listed(["x" * 10**6] * 8)) < 700


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
def test_messages_about_arguments_are_short(value: Any) -> None:
    preprocessor = gw.GPT2CausalLMPreprocessor(gw.GPT2Tokenizer(), 8)
    calls = [
        lambda: number("temperature", value, 0, 2),
        lambda: integer("seed", value, 0, 10),
        lambda: GPT2Config.from_dict({"model_type": value}),
        lambda: GPT2Config.from_dict({"model_type": "gpt2", "n_embd": value}),
        lambda: GPT2Config.from_dict({"model_type": "gpt2", "eos_token_id": [value]}),
        lambda: GPT2Config.from_dict({"model_type": "gpt2", "activation_function": value}),
        lambda: preprocessor.encode_prompts([value, 1]),  # type: ignore[list-item]
        lambda: preprocessor.encode_prompts({"x": value}),  # type: ignore[arg-type]
        lambda: gw.GPT2CausalLM.from_preset(value),
        lambda: gw.samplers.get([value]),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(GPT2WGPUError) as caught:
            call()
        assert len(str(caught.value)) < 600


def test_the_prompt_that_is_no_text_is_named() -> None:
    prompts: list[Any] = ["once upon a time"] * 1000
    prompts[612] = float("nan")
    preprocessor = gw.GPT2CausalLMPreprocessor(gw.GPT2Tokenizer(), 8)
    message = "expected a str or a list of str, but item 612 of 1000 is nan"
    with pytest.raises(gw.errors.InvalidArgumentError, match=f"^{re.escape(message)}$"):
        preprocessor.encode_prompts(prompts)


@pytest.mark.parametrize("wrong", [float("nan"), b"bytes", None, ""])
def test_the_item_of_a_list_that_is_wrong_is_named(wrong: Any) -> None:
    texts: list[Any] = ["text"] * 1000
    texts[7] = wrong
    message = f"item 7 of 1000 is {re.escape(repr(wrong))}$"
    tokenizer = gw.GPT2Tokenizer()
    calls = [lambda: StopTextMatcher(texts), lambda: gw.GPT2Tokenizer(special_tokens=texts)]
    if wrong != "":
        calls.append(lambda: tokenizer.tokenize(texts))
    for call in calls:
        with pytest.raises(GPT2WGPUError, match=message):
            call()
