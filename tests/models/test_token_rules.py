"""Rules that exclude tokens: whole texts against transformers on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPTS = [[11, 5, 100, 7], [3, 200, 200, 41], [90, 8, 17, 60]]
LENGTH = 40
PAD = 210


@without_gradients
def reference(model, stops, prompts=PROMPTS, **settings):
    """transformers' greedy texts."""
    import torch

    ids = torch.tensor(prompts)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=stops or None,
        pad_token_id=PAD, max_length=LENGTH, **settings,
    )  # fmt: skip
    return [[*row, *[PAD] * (LENGTH - len(row))] for row in out.tolist()]


def generated(lm, stops, prompts=PROMPTS, sampler=samplers.Greedy, processors=(), **settings):
    lm.compile(sampler(**settings), logits_processors=processors)
    out = lm.generate(packed(prompts, LENGTH), stop_token_ids=stops)
    return np.where(out["padding_mask"], out["token_ids"], PAD).tolist()


@pytest.fixture(scope="module")
def plain(small_lm):
    """Greedy texts without rules."""
    return generated(small_lm, [])


def cases(plain):
    """For each rule: stop tokens, and settings that change the texts."""
    new = [row[4:] for row in plain]
    end = new[0][2]
    return {
        "suppress_tokens": ([], {"suppress_tokens": sorted({*new[0][:3], new[1][1]})}),
        "begin_suppress_tokens": ([], {"begin_suppress_tokens": [new[0][0], new[2][0]]}),
        "min_length": ([end], {"min_length": 12}),
        "min_new_tokens": ([end, new[1][0]], {"min_new_tokens": 9}),
        "no_repeat_ngram_size": ([], {"no_repeat_ngram_size": 1}),
        "longer n-grams": ([], {"no_repeat_ngram_size": 2, "repetition_penalty": 0.5}),
        "bad_words_ids": (
            [end],
            {"bad_words_ids": [[new[1][3]], new[0][:3], new[2][4:6], [end], [60, new[2][0]]]},
        ),
        "logit_bias": ([], {"logit_bias": {new[0][0]: -3.5, 17: 1.5, 0: 0.25}}),
        "sequence_bias": (
            [],
            {
                "sequence_bias": {
                    (new[0][3],): -1.0, (7, new[0][0]): -9.0, (*new[1][:2], new[1][2]): -9.0,
                    (3, 200, 200, 41, 5): 30.0, (60, 6): 2.0, (5, 17): 25.0, (*range(41), 3): 1.0,
                },
                "repetition_penalty": 1.1,
            },
        ),
        "forced_eos_token_id": ([], {"forced_eos_token_id": 9}),
        "forced tokens": ([], {"forced_eos_token_id": [new[1][1], 9, 8]}),
        "all": (
            [end],
            {
                "suppress_tokens": [new[1][2]], "begin_suppress_tokens": [new[0][0]],
                "min_new_tokens": 20, "no_repeat_ngram_size": 2, "bad_words_ids": [new[2][:2]],
                "logit_bias": {3: 1.0}, "sequence_bias": {(7, 3): 9.5}, "repetition_penalty": 1.2,
                "forced_eos_token_id": [end],
            },
        ),
    }  # fmt: skip


@pytest.mark.parametrize("rule", cases([[*range(40)]] * 3))
def test_texts_equal_transformers(small, small_lm, plain, rule):
    stops, settings = cases(plain)[rule]
    theirs = dict(settings)
    if "logit_bias" in theirs:
        biases = theirs.pop("logit_bias")
        singles = {(token,): bias for token, bias in biases.items()}
        theirs["sequence_bias"] = singles | theirs.get("sequence_bias", {})
    expected = reference(small[0], stops, **theirs)
    assert expected != reference(small[0], stops)  # the rule matters
    assert generated(small_lm, stops, **settings) == expected
    alone = [generated(small_lm, stops, [prompt], **settings)[0] for prompt in PROMPTS]
    assert alone == expected


@pytest.mark.parametrize("settings", [{}, {"begin_suppress_tokens": [*range(100)]}], ids=str)
def test_a_forced_second_token(small, small_lm, settings):
    """It follows a prompt of one token; the begin-suppressed tokens then are those after it."""
    ids, settings = [[11]], {**settings, "forced_bos_token_id": 9}
    expected = reference(small[0], [], ids, **settings)
    assert generated(small_lm, [], ids, **settings) == expected
    assert expected[0][:2] == [11, 9]
    plain = generated(small_lm, [])
    assert generated(small_lm, [], forced_bos_token_id=9) == plain  # prompts of several tokens


def test_rules_of_eager_steps_and_python_samplers(small_lm, plain):
    """A processor that reads ids makes the steps eager; one step is also compared with recorded."""
    stops, settings = cases(plain)["all"]
    expected = generated(small_lm, stops, **settings)
    seen = []

    def look(token_ids, logits):
        seen.append(len(token_ids[0]))
        return logits

    assert generated(small_lm, stops, processors=[look], **settings) == expected
    assert len(seen) > 9

    class Largest(samplers.Sampler):
        def get_next_token(self, probabilities):
            return probabilities.numpy().argmax(-1)

    assert generated(small_lm, stops, sampler=Largest, **settings) == expected
    small_lm.compile(samplers.Greedy(**settings))
    small_lm.make_generate_function(check=True)
    out = small_lm.generate(packed(PROMPTS, LENGTH), stop_token_ids=stops)
    assert np.where(out["padding_mask"], out["token_ids"], PAD).tolist() == expected


def test_a_kept_run_begins_anew(small_lm, plain):
    """Texts and flags of the text before are gone; other rules have other recordings."""
    settings = {"no_repeat_ngram_size": 1}
    first = generated(small_lm, [], **settings)
    again = small_lm.generate(packed(PROMPTS[::-1], LENGTH), stop_token_ids=None)
    assert again["token_ids"].tolist() == first[::-1]
    small_lm.sampler.no_repeat_ngram_size = 0
    again = small_lm.generate(packed(PROMPTS, LENGTH), stop_token_ids=None)
    assert again["token_ids"].tolist() == plain


@pytest.mark.parametrize("bad_word_first", [False, True])
def test_a_kept_run_of_other_stop_tokens(small_lm, plain, bad_word_first):
    """A bad word that is a stop token is not excluded; for another stop token it is."""
    word, other = plain[0][6], PAD
    expected = {}
    for stop in (word, other):
        expected[stop] = generated(small_lm, [stop], bad_words_ids=[[word]])  # no kept run
    assert expected[word] != expected[other]
    small_lm.compile(samplers.Greedy(bad_words_ids=[[word]]))
    for stop in (word, other, word) if bad_word_first else (other, word, other):
        again = small_lm.generate(packed(PROMPTS, LENGTH), stop_token_ids=[stop])
        ids = np.where(again["padding_mask"], again["token_ids"], PAD)
        assert ids.tolist() == expected[stop]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"suppress_tokens": "ab"}, "suppress_tokens must be a list of token ids, not 'ab'"),
        ({"begin_suppress_tokens": [-1]}, "a token id of begin_suppress_tokens must be .*not -1"),
        ({"bad_words_ids": [[]]}, "bad_words_ids holds an empty list"),
        ({"logit_bias": [1]}, r"logit_bias must be a dict of token ids and numbers, not \[1\]"),
        ({"logit_bias": {1: float("nan")}}, "a bias of logit_bias must be .*not nan"),
        (
            {"sequence_bias": [[1, 2, 3]]},
            "sequence_bias must be a dict of tuples .*or a list of pairs",
        ),
        ({"sequence_bias": {(): 1.0}}, "sequence_bias holds an empty list"),
        ({"sequence_bias": [[[1], "a"]]}, "a bias of sequence_bias must be .*not 'a'"),
        ({"forced_bos_token_id": [1]}, r"forced_bos_token_id must be an integer .*not \[1\]"),
        ({"min_length": -1}, "min_length must be an integer >= 0"),
    ],
)
def test_wrong_rules(settings, said):
    with pytest.raises(InvalidArgumentError, match=said):
        samplers.Greedy(**settings)


def test_rules_that_do_not_fit(small_lm):
    small_lm.compile(samplers.Greedy(suppress_tokens=[7000]))
    with pytest.raises(InvalidArgumentError, match="token 7000 of suppress_tokens is not in the"):
        small_lm.generate(packed(PROMPTS, LENGTH), stop_token_ids=None)


def test_what_excludes_every_token_is_named(small_lm):
    for settings, names in (
        ({"suppress_tokens": range(211)}, "suppress_tokens"),
        ({"suppress_tokens": range(1, 211), "bad_words_ids": [[0]]}, "suppress_tokens and bad_wor"),
        (
            {"suppress_tokens": [5], "forced_eos_token_id": 5},
            "suppress_tokens and forced_eos_token",
        ),
    ):
        small_lm.compile(samplers.Greedy(**settings))
        with pytest.raises(NumericalError, match=f"is excluded at position .*: by {names}.*, or a"):
            small_lm.generate(packed(PROMPTS, 6), stop_token_ids=None)


def test_configs_hold_the_rules():
    settings = {
        "bad_words_ids": [[1, 2]], "min_length": 4, "logit_bias": {3: 1.0},
        "sequence_bias": {(3, 4): 1.0}, "forced_bos_token_id": 7, "min_new_tokens": 0,
    }  # fmt: skip
    sampler = samplers.TopK(3, **settings)
    assert samplers.get(samplers.serialize(sampler)).rules() == sampler.rules()
    assert sampler.get_config() == {"k": 3, "temperature": 1.0, "seed": None, **settings}
