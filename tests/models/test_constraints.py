"""Constrained output: texts of a tiny model, whose tokens are bytes."""

from __future__ import annotations

import sys

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import DependencyError, InvalidArgumentError, NumericalError
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.samplers import Constraint, GrammarConstraint, TextConstraint
from tests.memory import tiny
from tests.models import fake_llguidance

pytestmark = pytest.mark.usefixtures("no_leak")

TEXTS = ("abba", "abc", "ab", "[1]", "dé")
PROMPTS = ["abc", "q", "z{z", "~", "a"]


class OneOf:
    """Rules for texts that are in a list."""

    def __init__(self, *texts):
        self.texts = texts
        self.asked = []

    def allows(self, text, piece):
        self.asked.append((text, piece))
        return any(each.startswith(text + piece) for each in self.texts)

    def finished(self, text):
        return text in self.texts


@pytest.fixture(scope="module")
def model(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture
def lm(model):
    yield model
    model.compile()


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", fake_llguidance)


def tokenizer_of(lm):
    return lm.preprocessor.tokenizer


def by_text(tokenizer):
    return TextConstraint(tokenizer, OneOf("abba", "abc", "ab", "[1]"))


def by_grammar(tokenizer):
    return GrammarConstraint(tokenizer, 'start: "abba" | "abc" | "ab" | "[1]" | "dé"')


def draws(seed):
    return samplers.Random(seed, temperature=3.0)


@pytest.mark.parametrize("constraint", [by_text, by_grammar])
@pytest.mark.parametrize("sampler", ["greedy", draws(1), draws(2)], ids=str)
def test_every_row_of_every_generation_matches(lm, library, constraint, sampler):
    lm.compile(sampler, logits_processors=[constraint(tokenizer_of(lm))])
    found = set()
    for _ in range(3):
        found.update(lm.generate(PROMPTS, max_new_tokens=8, strip_prompt=True))
    assert found <= {*TEXTS}
    assert "".join(lm.stream("q", max_new_tokens=8)) in TEXTS
    if sampler != "greedy":
        assert len(found) > 2


@pytest.mark.parametrize("constraint", [by_text, by_grammar])
def test_a_row_equals_the_prompt_alone(lm, library, constraint):
    lm.compile(draws(None), logits_processors=[constraint(tokenizer_of(lm))])
    seeds = [3, 4, 5, 6, 7]
    together = lm.generate(PROMPTS, max_new_tokens=8, seed=seeds)
    alone = [
        lm.generate(prompt, max_new_tokens=8, seed=seed)
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_a_prompt_that_continues_the_last_text_begins_a_new_one(lm):
    lm.compile("greedy", logits_processors=[TextConstraint(tokenizer_of(lm), OneOf("xy"))])
    assert lm.generate("ab", max_new_tokens=1) == "abx"
    assert lm.generate("abx", max_new_tokens=4) == "abxxy"


def test_the_least_likely_token_is_found(lm):
    seen = []

    def note(token_ids, logits):
        seen.append(logits.tolist()[0])
        return logits

    lm.compile("greedy", logits_processors=[note])
    lm.generate("abc", max_new_tokens=1)
    least = chr(33 + min(range(94), key=seen[0].__getitem__))
    lm.compile("greedy", logits_processors=[TextConstraint(tokenizer_of(lm), OneOf(least))])
    assert lm.generate("abc", max_new_tokens=3, strip_prompt=True) == least


def test_all_whole_characters_are_candidates_and_nothing_else(lm):
    rules = OneOf("a")
    matcher = TextConstraint(tokenizer_of(lm), rules).new_matcher()
    mask = matcher.allowed()
    assert sorted(rules.asked) == [("", chr(i)) for i in range(128)]  # single bytes
    assert [i for i, allowed in enumerate(mask) if allowed] == [ord("a") - 33]


@pytest.mark.parametrize(
    "make",
    [
        lambda tokenizer: TextConstraint(tokenizer, OneOf("1", "12")),
        lambda tokenizer: GrammarConstraint(tokenizer, 'start: "1" | "12"'),
        lambda tokenizer: GrammarConstraint.from_json_schema(tokenizer, {"enum": [1, 12]}),
        lambda tokenizer: GrammarConstraint.from_regex(tokenizer, "1|12"),
    ],
    ids=["rules", "grammar", "schema", "regex"],
)
def test_the_end_token_is_allowed_where_the_text_may_end(lm, library, make):
    tokenizer = tokenizer_of(lm)
    one, two = tokenizer.encode("12")
    end = tokenizer.end_token_id
    matcher = make(tokenizer).new_matcher()
    for expected, token in (({one}, one), ({two, end}, two), ({end}, end), ({end}, end)):
        assert {i for i, allowed in enumerate(matcher.allowed()) if allowed} == expected
        assert matcher.consume(token)
    assert not matcher.consume(one)


def test_no_token_left_is_an_error(lm):
    lm.compile("greedy", logits_processors=[TextConstraint(tokenizer_of(lm), OneOf("aé"))])
    with pytest.raises(NumericalError, match="every token of row 0 is excluded at position 2"):
        lm.generate("q", max_new_tokens=4)


def test_a_forced_last_token_ends_a_text_anywhere(lm):
    """As in transformers, also where the constraint excludes it; the other rows go on."""
    tokenizer = tokenizer_of(lm)
    end = tokenizer.end_token_id
    constraint = TextConstraint(tokenizer, OneOf("abbaabba"))
    sampler = samplers.Greedy(forced_eos_token_id=end)
    lm.compile(sampler, logits_processors=[constraint])
    found = lm.generate(["a", "qq"], max_length=8, return_details=True, strip_prompt=True)
    lengths = [len(each.token_ids) for each in found]
    assert lengths[0] == lengths[1] + 1
    for each in found:
        assert each.token_ids[-1] == end
        assert each.text == "abbaabba"[: len(each.token_ids) - 1]


def test_a_sampler_that_ignores_the_logits_is_an_error(lm, library):
    class Zero(samplers.Sampler):
        def get_next_token(self, probabilities):
            return [0] * probabilities.shape[0]

    for constraint in (by_text, by_grammar):
        lm.compile(Zero(), logits_processors=[constraint(tokenizer_of(lm))])
        with pytest.raises(InvalidArgumentError, match="token 0 was chosen"):
            lm.generate("q", max_new_tokens=4)


def test_wrong_arguments(lm, library, monkeypatch):
    tokenizer = tokenizer_of(lm)
    with pytest.raises(InvalidArgumentError, match="must have a method allows"):
        TextConstraint(tokenizer, lambda text, piece: True)
    with pytest.raises(InvalidArgumentError, match="needs the model's GPT2Tokenizer"):
        TextConstraint(lm, OneOf("a"))
    without_end = gw.GPT2Tokenizer({"a": 0}, [], start_token=None, end_token=None)
    with pytest.raises(InvalidArgumentError, match="an end token"):
        TextConstraint(without_end, OneOf("a"))
    with pytest.raises(InvalidArgumentError, match="llguidance rejects the grammar: no start"):
        GrammarConstraint(tokenizer, "nothing")
    with pytest.raises(InvalidArgumentError, match="a grammar is a str, not 3"):
        GrammarConstraint(tokenizer, 3)
    with pytest.raises(InvalidArgumentError, match="the JSON schema is malformed"):
        GrammarConstraint.from_json_schema(tokenizer, 3)
    with pytest.raises(InvalidArgumentError, match="in a generation only"):
        by_text(tokenizer)([[1]], None)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(DependencyError, match=r"pip install 'gpt2-wgpu\[grammar\]'"):
        by_grammar(tokenizer)


def test_each_generation_has_a_state_of_its_own(lm):
    constraint = by_text(tokenizer_of(lm))
    first, second = (TokenChoice.of(samplers.Greedy(), [constraint]) for _ in range(2))
    assert isinstance(first.processors[0], Constraint)
    assert len({id(constraint), id(first.processors[0]), id(second.processors[0])}) == 3
