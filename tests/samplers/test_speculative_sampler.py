"""Speculative decoding as a sampler: KerasHub's call, arguments and configuration."""

from __future__ import annotations

import copy

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers import Speculative, TopK, TopP

LENGTH = 12


def table(rows, calls=None):
    """``next`` whose token at each position is that of ``rows``, of the token before it, too."""

    def next(prompt, cache, index):
        if calls is not None:
            calls.append(index)
        if cache is not None:
            cache = {**cache, index - 1: prompt[0][index - 1]}
        return [[float(i == row[index]) for i in range(26)] for row in rows], None, cache

    return next


def ids(text):
    return [ord(letter) - 97 for letter in text]


TARGET = [ids("abcdefghijkl")]
PROMPT = [[25] * LENGTH]


def rows_of(output):
    return [list(map(int, row)) for row in output]


@pytest.mark.parametrize("draft", ["abcdefghijkl", "abxdefghijkl", "zzzzzzzzzzzz"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_text_is_that_of_the_model(draft, count):
    sampler = Speculative(count)
    output = sampler(table(TARGET), PROMPT, index=1, draft_next=table([ids(draft)]))
    assert rows_of(output) == [[25, *TARGET[0][1:]]]


def test_numbers_of_calls():
    target, draft = [], []
    Speculative(3)(table(TARGET, target), PROMPT, draft_next=table(TARGET, draft))
    assert target == [*range(12)]
    assert draft == [0, 1, 2, 4, 5, 6, 8, 9, 10]  # at 3, 7 and 11 the model chooses


def test_caches_have_the_tokens_of_the_text():
    """A rejected token is computed over, and the last of an accepted draft is not left out."""
    for drafted in ("abcdefghijkl", "abxdefghijkl"):
        caches = []

        def draft_next(prompt, cache, index, drafted=drafted, caches=caches):
            found = table([ids(drafted)])(prompt, cache, index)
            caches.append(found[2])
            return found

        Speculative(3)(table(TARGET), PROMPT, draft_next=draft_next, draft_cache={})
        last = max(each for each in caches[-1])
        assert {at: caches[-1][at] for at in range(last)} == dict(enumerate(TARGET[0][:last]))


def test_rows_keep_their_tokens_and_advance_together():
    target = [ids("abcdefghijkl"), ids("mnopqrstuvwx")]
    draft = [ids("abcdefghijkl"), ids("mzzzzzzzzzzz")]
    mask = [[False] * LENGTH, [at == 2 for at in range(LENGTH)]]
    output = Speculative(4)(table(target), PROMPT * 2, mask=mask, draft_next=table(draft))
    assert rows_of(output) == [target[0], [*target[1][:2], 25, *target[1][3:]]]


def test_it_ends_at_stop_tokens():
    output = Speculative(4)(
        table(TARGET), PROMPT, draft_next=table(TARGET), stop_token_ids=[ord("c") - 97]
    )
    assert rows_of(output) == [[0, 1, 2, *[25] * 9]]


def test_the_model_verifies_a_draft_in_one_call():
    spans = []

    def verify_next(prompt, cache, index, k):
        spans.append((index, k))
        places = range(index, index + k + 1)
        return [[[float(i == TARGET[0][at]) for i in range(26)] for at in places]], cache

    output = Speculative(4)(None, PROMPT, draft_next=table(TARGET), verify_next=verify_next)
    assert rows_of(output) == TARGET
    assert spans == [(0, 4), (5, 4), (10, 1)]


def test_arguments():
    with pytest.raises(InvalidArgumentError, match="needs draft_next"):
        Speculative()(table(TARGET), PROMPT)
    for wrong in (0, 8, 1.5):
        with pytest.raises(InvalidArgumentError, match="num_speculative_tokens"):
            Speculative(wrong)
    for base in ("beam", "contrastive", Speculative()):
        with pytest.raises(InvalidArgumentError, match="base_sampler must choose on the GPU"):
            Speculative(base_sampler=base)
    for given in ({"temperature": 0.5}, {"repetition_penalty": 2}):
        with pytest.raises(InvalidArgumentError, match="give temperature"):
            Speculative(3, TopK(), **given)
    with pytest.raises(InvalidArgumentError, match="penalties and token rules"):
        Speculative(repetition_penalty=2)(table(TARGET), PROMPT, draft_next=table(TARGET))


def test_config_and_copies():
    sampler = Speculative(7, TopP(p=0.9, temperature=0.8), seed=42, draft_model="a model")
    config = sampler.get_config()
    assert config["num_speculative_tokens"] == 7
    assert config["base_sampler"]["config"]["temperature"] == 0.8
    for restored in (
        Speculative.from_config(config),
        samplers.deserialize(samplers.serialize(sampler)),
        copy.copy(sampler),
    ):
        assert restored.get_config() == config
        assert restored.next_options() == Speculative.from_config(config).next_options()
    assert copy.copy(sampler).draft_model == "a model"
    greedy = Speculative(2, repetition_penalty=1.5)
    assert Speculative.from_config(greedy.get_config()).get_config() == greedy.get_config()
    assert greedy.next_options().temperature == 0
    assert TopK.from_config(TopK(3).get_config()).k == 3
