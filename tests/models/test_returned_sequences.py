"""``num_return_sequences`` of ``stream``, and of samplers that draw nothing."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.integrations.web_worker import Model
from gpt2_wgpu.models import generation_details
from gpt2_wgpu.models.step_logprobs import StepLogprobs
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


@pytest.mark.parametrize("sampler", [samplers.BeamSampler(3, return_all_beams=True), "random"])
def test_details_without_log_probabilities_compute_none(lm, sampler, monkeypatch):
    """Scores of beams, ids and times need no pass of the model."""
    call = {"max_new_tokens": 5, "sampler": sampler, "return_details": True, "seed": 1}
    if sampler != "random":
        del call["seed"]
    whole = generate(lm, PROMPTS, **call)
    monkeypatch.setattr(generation_details, "logprobs_of_rows", None)
    monkeypatch.setattr(StepLogprobs, "append", None)
    found = generate(lm, PROMPTS, top_logprobs=None, **call)
    assert len(found) == len(whole) == (2 if sampler == "random" else 6)
    for one, other in zip(found, whole, strict=True):
        assert (one.text, one.token_ids, one.score) == (other.text, other.token_ids, other.score)
        assert len(other.logprobs) == len(other.token_ids) and other.top_logprobs[0] == {}
        assert one.logprobs == one.ranks == one.entropies == one.top_logprobs == []
    if sampler == "random":
        with lm.session("abc") as session:
            details = session.generate(3, return_details=True, top_logprobs=None)
            assert (len(details.token_ids), details.logprobs) == (3, [])


def test_all_beams_of_the_page_compute_no_log_probabilities(lm, monkeypatch):
    """Without ``details`` they have texts and scores."""
    wanted = generate(
        lm, "abc", max_new_tokens=5, return_details=True,
        sampler=samplers.BeamSampler(3, return_all_beams=True, repetition_penalty=1.0),
    )  # fmt: skip
    monkeypatch.setattr(generation_details, "logprobs_of_rows", None)
    model = Model("tiny", lm)
    given = {"numBeams": 3, "returnAllBeams": True, "maxTokens": 5, "repetitionPenalty": 1.0}
    found = asyncio.run(model.generate(["abc"], given))
    assert [each["score"] for each in found] == [each.score for each in wanted]
    assert {*found[0]} == {"text", "score"}


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
