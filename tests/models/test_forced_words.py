"""Beam search with forced words: the best texts by brute force, on transformers' logits."""

from __future__ import annotations

import itertools

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.beam_search import beam_search
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.samplers import BeamSampler
from gpt2_wgpu.samplers.forced_words import ForcedBeams, ForcedWords
from gpt2_wgpu.webgpu.waiting import sync
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPTS = [[11, 5, 100, 7], [3, 200]]
CANDIDATES = 16  # tokens that may be chosen
ROOM = 4
STOP = 15
WORDS = [
    [[3]],
    [[2, 9]],
    [[2, 9, 1, 4]],
    [[5], [12, 1]],
    [[3], [3]],
    [[[1, 2], [4]], [6]],  # the first: one of two
    [[[1, 2, 3, 4], [8, 8]]],
]


@pytest.fixture(scope="module")
def all_texts(small):
    """For each prompt the log-probability of every text of ROOM tokens, or up to STOP."""
    return [_all_texts(small[0], prompt) for prompt in PROMPTS]


@without_gradients
def _all_texts(model, prompt):
    import torch

    found: dict[tuple[int, ...], float] = {}
    texts: dict[tuple[int, ...], float] = {(): 0.0}
    for length in range(1, ROOM + 1):
        ids = torch.tensor([[*prompt, *text] for text in texts])
        rows = model(ids).logits[:, -1, :CANDIDATES].log_softmax(-1).tolist()
        longer = {
            (*text, token): score + row[token]
            for (text, score), row in zip(texts.items(), rows, strict=True)
            for token in range(CANDIDATES)
        }
        ended = {text for text in longer if text[-1] == STOP or length == ROOM}
        found |= {text: longer[text] for text in ended}
        texts = {text: score for text, score in longer.items() if text not in ended}
    return found


def holds(text, words):
    """Whether a text contains the words; the same word twice at two places."""
    choices = [each if isinstance(each[0], list) else [each] for each in words]
    for choice, given in itertools.groupby(sorted(choices)):
        places = {
            end
            for word in choice
            for end in range(len(word), len(text) + 1)
            if list(text[end - len(word) : end]) == word
        }
        if len(places) < len([*given]):
            return False
    return True


def found_beams(lm, beams, words, room=ROOM, **rules):
    sampler = BeamSampler(
        beams, force_words_ids=words, length_penalty=0.0, early_stopping="never",
        return_all_beams=True, **rules,
    )  # fmt: skip
    limits = [len(prompt) + room for prompt in PROMPTS]
    search = beam_search(sampler, lm, PROMPTS, limits, [STOP], Candidates(CANDIDATES))
    return sync(search, "beam_search")


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_the_best_text_with_the_words(small_lm, all_texts, words):
    for texts, found in zip(all_texts, found_beams(small_lm, 15, words), strict=True):
        fitting = {text: score for text, score in texts.items() if holds(text, words)}
        best = max(fitting, key=fitting.__getitem__)
        assert best != max(texts, key=texts.__getitem__)  # the words matter
        assert found[0].tokens == best
        assert len(found) == 15
        for beam in found:
            assert beam.score == pytest.approx(fitting[beam.tokens], abs=1e-4)
        assert len({beam.tokens for beam in found}) == min(15, len(fitting))


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("words", [*WORDS, [[1, 2], [2, 3]]], ids=str)  # the last may overlap
def test_few_beams_hold_the_words_too(small_lm, beams, words):
    for found in found_beams(small_lm, beams, words):
        assert len(found) == beams
        assert all(holds(beam.tokens, words) for beam in found)


def is_without_repeats(prompt, text):
    return len({*prompt, *text}) == len(prompt) + len(text)


def is_without_bad_words(prompt, text):
    return not {1, 2, 4} & {*text} and (9, 3) not in itertools.pairwise(text)


RULES = [
    ({"no_repeat_ngram_size": 1}, is_without_repeats),
    ({"bad_words_ids": [[1], [2], [4], [9, 3]]}, is_without_bad_words),
]


@pytest.mark.parametrize("words", [[[9]], [[[6, 0], [9]], [8]]], ids=str)
@pytest.mark.parametrize(("rules", "is_allowed"), RULES, ids=["repeats", "bad words"])
def test_the_best_text_with_words_and_rules(small_lm, all_texts, rules, is_allowed, words):
    results = found_beams(small_lm, 12, words, **rules)
    for prompt, texts, found in zip(PROMPTS, all_texts, results, strict=True):
        fitting = {
            text: score
            for text, score in texts.items()
            if holds(text, words) and is_allowed(prompt, text)
        }
        assert found[0].tokens == max(fitting, key=fitting.__getitem__)
        for beam in found:
            assert beam.score == pytest.approx(fitting[beam.tokens], abs=1e-4)


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize(("rules", "is_allowed"), RULES, ids=["repeats", "bad words"])
def test_excluded_words_take_no_room_from_likely_tokens(small_lm, rules, is_allowed, beams):
    """A word that has been written is excluded by the first rule."""
    words = [[8], [6], [0], [9]]
    results = found_beams(small_lm, beams, words, room=8, **rules)
    for prompt, found in zip(PROMPTS, results, strict=True):
        assert len({beam.tokens for beam in found}) == beams
        for beam in found:
            assert holds(beam.tokens, words) and is_allowed(prompt, beam.tokens)


def test_excluded_tokens_keep_their_places():
    """The last items of a row are the words, also when some of them are excluded."""
    search = ForcedBeams(ForcedWords.of([[5], [6]]), 2, 9, (), 1.0, False)
    lowest = -1e30
    search.advance([[(1, -1.0), (5, -2.0), (5, -2.0), (6, -3.0)]])
    assert [beam.tokens for beam in search.running] == [(5,), (1,)]
    search.advance(
        [
            [(2, -1.0), (3, -1.5), (5, lowest), (6, lowest)],
            [(4, -9.0), (2, -9.5), (5, lowest), (6, lowest)],
        ]
    )
    assert [beam.tokens for beam in search.running] == [(5, 2), (1, 4)]


def test_a_row_does_not_depend_on_its_batch(small_lm):
    sampler = BeamSampler(3, force_words_ids=[[5, 6], [7]], length_penalty=0.5)
    small_lm.compile(sampler)
    both = small_lm.generate(packed(PROMPTS, 14), stop_token_ids=[1, 2])["token_ids"].tolist()
    for prompt, row in zip(PROMPTS, both, strict=True):
        alone = small_lm.generate(packed([prompt], 14), stop_token_ids=[1, 2])
        assert alone["token_ids"].tolist() == [row]
        assert holds(row[len(prompt) :], [[5, 6], [7]])


def test_texts(tales):
    words = [
        tales.preprocessor.tokenizer.encode(" dragon"),
        tales.preprocessor.tokenizer(" forest"),
    ]
    sampler = BeamSampler(3, force_words_ids=words)
    text = tales.generate("The king", max_new_tokens=14, sampler=sampler, strip_prompt=True)
    assert " dragon" in text and " forest" in text
    with tales.stream("The king", max_new_tokens=14, sampler=sampler) as stream:
        assert "".join(stream) == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ab", "force_words_ids must be a list of words, lists of token ids, or of lists"),
        ([3], r"must be a list of words, .*not \[3\]"),
        ([[]], r"must be a list of words, .*not \[\[\]\]"),
        ([[[1], []]], "force_words_ids holds an empty list"),
        ([[-1]], "a token id of force_words_ids must be .*not -1"),
    ],
    ids=str,
)
def test_wrong_words(words, said):
    with pytest.raises(InvalidArgumentError, match=said):
        BeamSampler(force_words_ids=words)


def test_words_that_do_not_fit(small_lm):
    with pytest.raises(InvalidArgumentError, match=f"token {STOP} of force_words_ids is a stop"):
        found_beams(small_lm, 2, [[STOP]])
    with pytest.raises(InvalidArgumentError, match="token 16 of force_words_ids is not in the voc"):
        found_beams(small_lm, 2, [[16]])
    with pytest.raises(InvalidArgumentError, match="have 5 tokens, but only 4 can follow"):
        found_beams(small_lm, 2, [[1, 2], [3, 4, 5]])


def test_other_samplers_say_which_one_forces_words(small_lm):
    for kind in (samplers.Greedy, samplers.TopK, samplers.TopP):
        with pytest.raises(InvalidArgumentError, match="give force_words_ids to a BeamSampler"):
            kind(force_words_ids=[[1]])
    with pytest.raises(InvalidArgumentError, match="not supported by a call of the sampler"):
        BeamSampler(force_words_ids=[[1]])(lambda *_: None, [[1, 2]])


def test_configs_hold_the_words():
    sampler = BeamSampler(2, force_words_ids=[[1, 2], [[3], [4]]])
    assert samplers.get(samplers.serialize(sampler)).forced_words() == sampler.forced_words()
    assert "force_words_ids" not in BeamSampler().get_config()
