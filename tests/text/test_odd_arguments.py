"""Values of any type as arguments of the text API: an error of this package, or a result."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import GPT2WGPUError
from gpt2_wgpu.text import (
    BytePairTokenizer,
    GPT2CausalLMPreprocessor,
    GPT2Tokenizer,
    StartEndPacker,
    StopTextMatcher,
)

ODD: list[Any] = [
    None, True, -1, 0, 1.5, float("nan"), 10**400, "x", "", b"x", [], [1], ["a"], [None], {},
    {"a": 1}, {1: "a"}, (1,), object(), np.zeros(2), np.int64(3), np.float32(0.5), 1 + 2j,
    {"a": None}, [["a"]], set(), "\ud800", "nul\0",
]  # fmt: skip
SMALL: dict[str, Any] = {
    "vocabulary": {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3},
    "merges": ["a b"],
}
TOKENIZER = GPT2Tokenizer(**SMALL)
PREPROCESSOR = GPT2CausalLMPreprocessor(TOKENIZER, 4)
NEEDED: dict[type, dict[str, Any]] = {
    samplers.Greedy: {},
    samplers.Random: {},
    samplers.TopK: {},
    samplers.TopP: {},
    BytePairTokenizer: SMALL,
    GPT2Tokenizer: SMALL,
    GPT2CausalLMPreprocessor: {"tokenizer": TOKENIZER},
    StartEndPacker: {"sequence_length": 4},
    StopTextMatcher: {},
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "samplers.get": samplers.get,
    "class_name": lambda value: samplers.get({"class_name": value}),
    "config": lambda value: samplers.get({"class_name": "top_k", "config": value}),
    "encode": TOKENIZER.encode,
    "allowed_special": lambda value: TOKENIZER.encode("a", value),
    "decode": TOKENIZER.decode,
    "detokenize": TOKENIZER.detokenize,
    "tokenize": TOKENIZER.tokenize,
    "id_to_token": TOKENIZER.id_to_token,
    "token_to_id": TOKENIZER.token_to_id,
    "token_bytes": TOKENIZER.token_bytes,
    "has_id": TOKENIZER.has_id,
    "load_assets": TOKENIZER.load_assets,
    "from_directory": GPT2Tokenizer.from_directory,
    "tokenizer of a config": GPT2Tokenizer.from_config,
    "preprocessor": PREPROCESSOR,
    "prompts": PREPROCESSOR.encode_prompts,
    "preprocess": PREPROCESSOR.generate_preprocess,
    "postprocess": PREPROCESSOR.generate_postprocess,
    "preprocessor of a config": GPT2CausalLMPreprocessor.from_config,
    "packer": StartEndPacker(4),
    "packer of a config": StartEndPacker.from_config,
}


def accepts(function: Callable[..., Any], *args: Any, **options: Any) -> None:
    try:
        function(*args, **options)
    except GPT2WGPUError as error:
        assert len(str(error)) < 700


@pytest.mark.parametrize("kind", NEEDED, ids=lambda kind: kind.__name__)
def test_constructors(kind: type) -> None:
    classes = [each for each in kind.__mro__ if each is not object]
    makers = [each.__dict__["__init__"] for each in classes if "__init__" in each.__dict__]
    parameters = {name for each in makers for name in inspect.signature(each).parameters}
    for name in sorted(parameters - {"self", "args", "kwargs", "others"}):
        if kind is not samplers.Greedy or name != "seed":
            for value in ODD:
                accepts(kind, **{**NEEDED[kind], name: value})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    for value in ODD:
        accepts(FUNCTIONS[name], value)


def test_save_assets_of_an_odd_path() -> None:
    odd: list[Any] = [None, 1.5, b"x", "nul\0", "\ud800", []]
    for value in odd:
        with pytest.raises(GPT2WGPUError):
            TOKENIZER.save_assets(value)


def test_assets_with_added_tokens(tmp_path: Any) -> None:
    """A token whose id an added one has taken is left out: a vocabulary is one for one."""
    tokenizer = GPT2Tokenizer(
        **SMALL, added_tokens={"<new>": 3, "<more>": 9}, end_token="<new>", start_token="<new>"
    )
    tokenizer.save_assets(tmp_path)
    again = BytePairTokenizer(tmp_path / "vocabulary.json", tmp_path / "merges.txt")
    assert again.get_vocabulary() == {"a": 0, "b": 1, "ab": 2, "<new>": 3, "<more>": 9}
