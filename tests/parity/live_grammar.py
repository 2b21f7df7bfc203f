"""GrammarConstraint with llguidance itself, in `make parity`, and the fake of the other tests."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers import GrammarConstraint
from tests.memory import tiny
from tests.models import fake_llguidance

SCHEMA = {
    "type": "object",
    "properties": {
        "hero": {"type": "string", "pattern": "^[A-Za-z ]{1,20}$"},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "brave": {"type": "boolean"},
    },
    "required": ["hero", "age", "brave"],
    "additionalProperties": False,
}


def masks(make: Any, ids: list[int]) -> list[list[int]]:
    """The allowed ids at each step of a text."""
    matcher = make(tiny.tokenizer()).new_matcher()
    found = []
    for token_id in [*ids, ids[-1]]:
        found.append([i for i, allowed in enumerate(matcher.allowed()) if allowed])
        if not matcher.consume(token_id):
            return [*found, [token_id]]
    return found


@pytest.mark.parametrize("text", ["abba", "abc", "ab", "dé", "abx", "é"])
def test_the_fake_allows_what_llguidance_allows(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = (
        lambda tokenizer: GrammarConstraint(tokenizer, 'start: "abba" | "abc" | "ab" | "dé"'),
        lambda tokenizer: GrammarConstraint.from_regex(tokenizer, "abba|abc|ab|dé"),
    )
    tokenizer = tiny.tokenizer()
    assert tokenizer.end_token_id is not None
    ids = [*tokenizer.encode(text), tokenizer.end_token_id]
    real = [masks(make, ids) for make in makers]
    monkeypatch.setitem(sys.modules, "llguidance", fake_llguidance)
    assert real == [masks(make, ids) for make in makers]


def test_malformed_grammars_are_rejected() -> None:
    tokenizer = tiny.tokenizer()
    with pytest.raises(InvalidArgumentError, match=r"llguidance rejects the grammar: .*nope"):
        GrammarConstraint(tokenizer, "start: nope")
    with pytest.raises(InvalidArgumentError, match="rejects the grammar"):
        GrammarConstraint.from_regex(tokenizer, "(")
    for schema in ("{", {"type": "nope"}):
        with pytest.raises(InvalidArgumentError, match=r"malformed|rejects the grammar"):
            GrammarConstraint.from_json_schema(tokenizer, schema)


@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_texts_are_json_of_the_schema() -> None:
    with gw.GPT2CausalLM.from_preset("fairytales") as lm:
        assert lm.preprocessor is not None
        constraint = GrammarConstraint.from_json_schema(lm.preprocessor.tokenizer, SCHEMA)
        lm.compile(gw.samplers.Random(seed=1), logits_processors=[constraint])
        prompts = ["Once upon a time there was a king: ", "The wolf", "a"]
        for _ in range(3):
            for text in lm.generate(prompts, max_new_tokens=90, strip_prompt=True):
                hero = json.loads(text)
                assert list(hero) == ["hero", "age", "brave"]
                assert 1 <= hero["age"] <= 99 and 1 <= len(hero["hero"]) <= 20
