"""``num_return_sequences`` of ``stream``, and of samplers that draw nothing."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["abc", "a"]


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


def generate(lm, inputs, **arguments):
    return lm.generate(inputs, stop_token_ids=None, strip_prompt=True, **arguments)


def streamed(stream, rows):
    texts = [""] * rows
    for row, piece in stream:
        texts[row] += piece
    return texts


@pytest.mark.parametrize("inputs", ["abc", ["abc", "a"], [1, 2, 3], [[1, 2, 3], [4]]])
def test_num_return_sequences_of_a_stream_are_those_of_generate(lm, inputs):
    """Rows of a ``BatchStream``, with the texts and seeds of ``generate``."""
    call = {"max_new_tokens": 9, "num_return_sequences": 3, "sampler": "random", "seed": 5}
    rows = 3 * (2 if isinstance(inputs[0], str | list) and isinstance(inputs, list) else 1)
    stream = lm.stream(inputs, stop_token_ids=None, **call)
    assert isinstance(stream, gw.BatchStream)
    texts = streamed(stream, rows)
    assert len({*texts}) == rows
    if isinstance(inputs, str) or isinstance(inputs[0], str):
        assert texts == generate(lm, inputs, **call)
    else:
        prompts = inputs if isinstance(inputs[0], list) else [inputs]
        packed = tiny.packed(prompts, 15)
        ids = lm.generate(packed, stop_token_ids=None, **call)
        assert [row.stats.token_ids for row in stream._rows] == [
            row[len(prompts[index // 3]) :][:9] for index, row in enumerate(tiny.ids_of(ids))
        ]
    seeds = list(range(rows))
    call["seed"] = seeds
    alone = lm.stream(
        inputs if rows == 3 else inputs[1],
        max_new_tokens=9, stop_token_ids=None, sampler="random", seed=seeds[-1],
    )  # fmt: skip
    stream = lm.stream(inputs, stop_token_ids=None, **call)
    assert streamed(stream, rows)[-1] == "".join(alone)


def test_a_stream_has_the_best_beams(lm):
    beams = samplers.BeamSampler(num_beams=4)
    call = {"max_new_tokens": 6, "sampler": beams, "num_return_sequences": 2}
    wanted = generate(lm, PROMPTS, **call)
    assert len({*wanted}) == 4
    stream = lm.stream(PROMPTS, stop_token_ids=None, **call)
    assert streamed(stream, 4) == wanted
    assert [details.prompt_tokens for details in stream.details()] == [4, 4, 2, 2]
    with pytest.raises(InvalidArgumentError, match="num_return_sequences 5 exceeds num_beams 4"):
        lm.stream("abc", sampler=beams, num_return_sequences=5)


def test_a_prompt_of_a_stream_that_does_not_fit_has_its_own_number(lm):
    with pytest.raises(ContextLengthError, match="prompt 1's 5 tokens"):
        lm.stream(["a", "abcd"], 5, num_return_sequences=3, sampler="random")


@pytest.mark.parametrize(
    "sampler",
    [
        "greedy",
        samplers.of_settings(temperature=0),
        samplers.Contrastive(),
        samplers.Speculative(),
        samplers.Speculative(base_sampler="greedy"),
    ],
)
def test_equal_texts_are_rejected(lm, sampler):
    """As in transformers; three times the same text would be computed."""
    if isinstance(sampler, samplers.Speculative):
        sampler.draft_model = lm
    for function in (lm.generate, lm.stream):
        with pytest.raises(InvalidArgumentError, match=r"3 with \w+ gives 3 equal texts"):
            function("abc", max_new_tokens=2, num_return_sequences=3, sampler=sampler)
