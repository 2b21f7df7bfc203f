"""``stream`` of several prompts: pairs of row and piece."""

from __future__ import annotations

import asyncio
import copy

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["abc", "", "a longer prompt", "d"]
LIMITS = {"stop_token_ids": None, "max_new_tokens": 20}


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


def texts_of(pieces, rows):
    texts = [""] * rows
    for row, piece in pieces:
        assert piece
        texts[row] += piece
    return texts


def replaced(lm):
    model = copy.copy(lm)
    model.generate_step = lambda *arguments: lm.generate_step(*arguments)
    return model


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step"])
def test_rows_are_those_of_generate_and_of_each_prompt_alone(lm, of):
    model = lm if of == "the decoding loop" else replaced(lm)
    stop = lm.generate("abc", strip_prompt=True, **LIMITS)[6:8]
    arguments = {"stop_texts": [stop], **LIMITS}
    expected = lm.generate(
        PROMPTS, strip_prompt=True, return_details=True, top_logprobs=2, **arguments
    )
    assert len({row.finish_reason for row in expected}) == 2
    stream = model.stream(PROMPTS, **arguments)
    with pytest.raises(InvalidArgumentError, match="has not ended"):
        stream.details()
    assert texts_of(stream, 4) == [row.text for row in expected]
    alone = [lm.stream(prompt, **arguments) for prompt in PROMPTS]
    for row, found, single in zip(expected, stream.details(top_logprobs=2), alone, strict=True):
        assert "".join(single) == row.text
        for field in ("text", "token_ids", "finish_reason", "prompt_tokens"):
            assert getattr(found, field) == getattr(row, field)
        assert found.logprobs == pytest.approx(row.logprobs, abs=1e-5)
        assert len(found.top_logprobs) == len(found.token_ids)
    for stats, row in zip(stream.stats, expected, strict=True):
        assert (stats.token_ids, stats.finish_reason) == (row.token_ids, row.finish_reason)
        assert 0 < stats.seconds_to_first_token <= stats.seconds
        assert stats.prompt_tokens == row.prompt_tokens


def test_seeds_and_samplers_of_a_call(lm):
    arguments = {"sampler": samplers.Random(temperature=2.0), "seed": [5, 6, 7, 8], **LIMITS}
    texts = texts_of(lm.stream(PROMPTS, **arguments), 4)
    assert texts == lm.generate(PROMPTS, strip_prompt=True, **arguments)
    assert len({*texts}) == 4
    with pytest.raises(InvalidArgumentError, match="seed has 2 entries for 4 rows"):
        lm.stream(PROMPTS, **arguments | {"seed": [1, 2]})


@pytest.mark.parametrize("kind", ["beam", "beams", "contrastive"])
def test_searches_give_whole_texts(lm, kind):
    sampler = {
        "beam": samplers.BeamSampler(3),
        "beams": samplers.BeamSampler(3, return_all_beams=True),
        "contrastive": samplers.ContrastiveSampler(k=3, alpha=0.5),
    }[kind]
    best = samplers.BeamSampler(3) if kind == "beams" else sampler
    pieces = list(lm.stream(PROMPTS, sampler=sampler, **LIMITS))
    assert [row for row, _ in pieces] == [0, 1, 2, 3]
    expected = lm.generate(PROMPTS, sampler=best, strip_prompt=True, **LIMITS)
    assert [text for _, text in pieces] == expected


def test_rows_come_as_they_are_computed(lm):
    """Token by token for all rows, and not row by row."""
    rows = [row for row, _ in lm.stream(PROMPTS, **LIMITS)]
    half = len(rows) // 2
    assert {*rows[:half]} == {*rows[half:]} == {0, 1, 2, 3}


def test_ids_of_the_last_piece(lm):
    stream = lm.stream(PROMPTS, **LIMITS)
    ids = [[], [], [], []]
    for row, _ in stream:
        ids[row] += stream.last_token_ids
    for row, stats in zip(ids, stream.stats, strict=True):
        assert row == stats.token_ids[: len(row)]  # the last ones may be without text
        assert len(row) > 10


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step"])
def test_rows_of_ids_and_dicts(lm, of):
    model = lm if of == "the decoding loop" else replaced(lm)
    rows = lm.preprocessor.encode_prompts(PROMPTS)
    expected = lm.generate(PROMPTS, strip_prompt=True, **LIMITS)
    width = max(map(len, rows)) + 20
    left = {
        "token_ids": [[0] * 3 + row + [0] * (width - len(row)) for row in rows],
        "padding_mask": [
            [False] * 3 + [True] * len(row) + [False] * (width - len(row)) for row in rows
        ],
    }
    for inputs in (rows, tuple(rows), tiny.packed(rows, width), left, tuple(PROMPTS)):
        assert texts_of(model.stream(inputs, **LIMITS), 4) == expected
    one = model.stream(rows[:1], **LIMITS)
    assert texts_of(one, 1) == expected[:1]
    assert texts_of(model.stream(PROMPTS[:1], **LIMITS), 1) == expected[:1]


def test_async_for(lm):
    async def collect():
        return [pair async for pair in lm.stream(PROMPTS, **LIMITS)]

    assert asyncio.run(collect()) == list(lm.stream(PROMPTS, **LIMITS))


@pytest.mark.parametrize("end", ["close", "cancel", "with", "drop"])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_early_ends(lm, taken, end):
    before = tiny.counters(lm.device)
    stream = lm.stream(PROMPTS, **LIMITS)
    text = [next(stream) for _ in range(taken)]
    assert len(text) == taken
    if end == "drop":
        del stream
    else:
        stream.__exit__() if end == "with" else getattr(stream, end)()
        assert tiny.counters(lm.device) == before
        assert texts_of(stream, 4).count("") >= 3  # held-back text at most
        assert {stats.finish_reason for stats in stream.stats} == {"aborted"}
        assert len(stream.details()) == 4
    assert tiny.counters(lm.device) == before


def test_rows_that_end_leave_the_batch(lm, monkeypatch):
    """By stop texts, too: of four rows one goes on."""
    from gpt2_wgpu.models.live_rows import LiveRows

    stops = [lm.generate(prompt, strip_prompt=True, **LIMITS)[4:6] for prompt in PROMPTS[1:]]
    left = []
    compact = LiveRows.compact

    def noted(self, *arguments):
        left.append(len(self.rows))
        return compact(self, *arguments)

    monkeypatch.setattr(LiveRows, "compact", noted)
    expected = lm.generate(PROMPTS, strip_prompt=True, stop_texts=stops, **LIMITS)
    by_generate, left[:] = left[-1], []
    assert texts_of(lm.stream(PROMPTS, stop_texts=stops, **LIMITS), 4) == expected
    assert left[-1] == by_generate < 4


def test_words(lm):
    stream = lm.stream(["a", "b"], **LIMITS)
    next(stream)
    expected = "<BatchStream of 2 rows, 1 new tokens, 2 rows running>"
    assert repr(stream) == expected
    stream.close()
    assert isinstance(stream, gw.BatchStream)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "or several"),
        (["abc", 5], "str"),
        (["abc", "d" * tiny.CONTEXT], "prompt 1"),
        ([[1, 2], [3] * tiny.CONTEXT], "prompt 1's 48 tokens"),
        ([[1, 2], [999]], "999"),
        (tiny.packed([], 3), "not 0 rows|at least one"),
    ],
)
def test_bad_prompts(lm, inputs, message):
    with pytest.raises((InvalidArgumentError, ContextLengthError), match=message):
        lm.stream(inputs)
