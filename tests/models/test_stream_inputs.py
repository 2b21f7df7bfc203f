"""``stream`` of ids, and the details of its text."""

from __future__ import annotations

import asyncio
import copy

import pytest

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step"])
def test_details_of_a_stream_are_those_of_generate(lm, of):
    model = lm
    if of == "a replaced generate_step":
        model = copy.copy(lm)
        model.generate_step = lambda *arguments: lm.generate_step(*arguments)
    stop = lm.generate("abc", max_new_tokens=20, stop_token_ids=None)[6:8]
    arguments = {"max_new_tokens": 20, "stop_token_ids": None, "stop_texts": [stop]}
    expected = lm.generate(
        "abc", strip_prompt=True, return_details=True, top_logprobs=3, **arguments
    )
    assert expected.finish_reason == "stop_text"
    stream = model.stream("abc", **arguments)
    with pytest.raises(InvalidArgumentError, match="has not ended"):
        stream.details()
    assert "".join(stream) == expected.text
    found = stream.details(top_logprobs=3)
    for field in ("text", "token_ids", "finish_reason", "prompt_tokens"):
        assert getattr(found, field) == getattr(expected, field)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    for ours, theirs in zip(found.top_logprobs, expected.top_logprobs, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    with pytest.raises(InvalidArgumentError, match="top_logprobs must be an integer"):
        stream.details(21)


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step"])
def test_a_stream_of_ids(lm, of):
    model = lm
    if of == "a replaced generate_step":
        model = copy.copy(lm)
        model.generate_step = lambda *arguments: lm.generate_step(*arguments)
    (ids,) = lm.preprocessor.encode_prompts(["abc"])
    limits = {"stop_token_ids": None, "max_new_tokens": 12}
    text = "".join(lm.stream("abc", **limits))
    packed = tiny.packed([ids], 40)
    one_row = {key: value[0] for key, value in packed.items()}
    left = {
        "token_ids": [[0] * 6 + packed["token_ids"][0]],
        "padding_mask": [[False] * 6 + packed["padding_mask"][0]],
    }
    given = [ids, tuple(ids), packed, one_row, left]
    for inputs in given:
        stream = model.stream(inputs, **limits)
        assert "".join(stream) == text
        assert stream.stats.prompt_tokens == len(ids)
        assert len(stream.details().logprobs) == 12
    for inputs, arguments in ((tiny.packed([ids], 9), {}), (ids, {"max_length": 9})):
        stream = model.stream(inputs, stop_token_ids=None, **arguments)
        assert text.startswith("".join(stream).rstrip("\ufffd"))
        assert (stream.stats.finish_reason, stream.stats.new_tokens) == ("length", 9 - len(ids))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "stream takes one prompt"),
        ([[1, 2], []], "empty|at least one"),
        (["abc", 5], "str"),
        (5, "stream takes one prompt"),
        (b"abc", "stream takes one prompt"),
        ([[1, 2], [1] * tiny.CONTEXT], "prompt 1's 48 tokens"),
        ([1, -1], "-1"),
        ([1, 2.5], "2.5"),
        ({"token_ids": [1]}, "padding_mask"),
        (tiny.packed([[1]], tiny.CONTEXT + 1), "context"),
        ([1] * tiny.CONTEXT, "context"),
    ],
)
def test_a_stream_of_wrong_ids(lm, inputs, message):
    with pytest.raises((InvalidArgumentError, ContextLengthError), match=message):
        lm.stream(inputs)


def test_details_of_a_closed_stream(lm):
    stream = lm.stream("abc", stop_token_ids=None)
    text = next(stream) + next(stream)
    stream.close()
    found = asyncio.run(stream.details_async())
    assert (found.text, found.finish_reason) == (text, "aborted")
    assert len(found.logprobs) == len(found.token_ids) == len(stream.stats.token_ids) > 0
    unread = lm.stream("abc")
    unread.close()
    assert unread.details().token_ids == []
