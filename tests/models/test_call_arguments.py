"""Arguments that a function lacks: the error names the function that has them, or what to use."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from tests.memory import tiny


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture
def session(lm):
    with lm.session("abc") as session:
        yield session


def functions(lm, session):
    """The functions that generate or score, by their names in messages."""
    return {
        "lm.generate": lambda **others: lm.generate("abc", **others),
        "lm.stream": lambda **others: lm.stream("abc", **others),
        "lm.score": lambda **others: lm.score([[1, 2]], **others),
        "lm.logprobs": lambda **others: lm.logprobs("abc", **others),
        "lm.perplexity": lambda **others: lm.perplexity("abc", **others),
        "lm.session": lambda **others: lm.session("abc", **others),
        "session.generate": lambda **others: session.generate(2, **others),
        "session.stream": lambda **others: session.stream(2, **others),
        "gw.generate_batches": lambda **others: list(gw.generate_batches(lm, ["abc"], **others)),
    }


def signatures(lm, session):
    return {
        "lm.generate": lm.generate,
        "lm.stream": lm.stream,
        "lm.score": lm.score,
        "lm.logprobs": lm.logprobs,
        "lm.perplexity": lm.perplexity,
        "lm.session": lm.session,
        "session.generate": session.generate,
        "session.stream": session.stream,
        "gw.generate_batches": gw.generate_batches,
    }


def test_each_function_with_the_arguments_of_the_others(lm, session):
    """An argument that a function lacks is our error, with its name; nothing is computed."""
    calls, names = functions(lm, session), signatures(lm, session)
    own = {
        name: {*inspect.signature(function).parameters} - {"options"}
        for name, function in names.items()
    }
    own["gw.generate_batches"] |= own["lm.generate"]  # rejected with messages of their own
    own["gw.generate_batches"] -= {"return_details", "top_logprobs", "inputs"}
    everything = sorted(set().union(*own.values()))
    assert len(everything) > 25
    rejected = 0
    for function, call in calls.items():
        for argument in everything:
            if argument in own[function]:
                continue
            with pytest.raises(InvalidArgumentError) as caught:
                call(**{argument: 2})
            assert str(caught.value).startswith(f"{function} has no argument {argument}: ")
            rejected += 1
    assert rejected > 120


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        ("lm.stream", "callback", "its loop has each piece, and break ends it"),
        ("lm.stream", "return_details", r"stream.details\(\) after its end"),
        ("lm.stream", "batch_size", "gw.generate_batches has it"),
        ("session.generate", "num_return_sequences", "a session has one text; lm.generate and"),
        ("session.stream", "max_length", "give max_new_tokens, or lm.session has it"),
        ("session.stream", "add_start_token", "lm.generate, .*lm.session.* have it"),
        ("gw.generate_batches", "return_details", "it yields texts; lm.generate has it"),
        ("lm.generate", "temperature", r"sampler=gw.samplers.of_settings\(temperature=...\)"),
        ("lm.generate", "num_beams", r"of_settings\(num_beams=...\)"),
        ("lm.generate", "do_sample", 'use sampler="greedy", or one of'),
        ("lm.generate", "stop_strings", "use stop_texts"),
        ("lm.generate", "max_new_token", "did you mean max_new_tokens?"),
        ("lm.logprobs", "zebra", "; it has return_details, stride, texts, top_logprobs"),
    ],
)
def test_what_to_use_instead(lm, session, function, argument, message):
    with pytest.raises(InvalidArgumentError, match=message):
        functions(lm, session)[function](**{argument: 3})


def test_async_forms_and_rows_of_a_batch(lm, session):
    batches: Any = gw.generate_batches_async

    async def wrong():
        with pytest.raises(
            InvalidArgumentError, match=r"lm.generate has no argument strip_prompts"
        ):
            await lm.generate_async("abc", strip_prompts=True)
        with pytest.raises(InvalidArgumentError, match=r"session.generate has no argument n: use"):
            await session.generate_async(2, n=2)
        with pytest.raises(InvalidArgumentError, match=r"gw.generate_batches has no argument n"):
            async for _ in batches(lm, ["abc"], n=2):
                pass
        async with gw.ContinuousBatch(lm) as batch:
            submit: Any = batch.submit
            with pytest.raises(InvalidArgumentError, match="submit has no argument stop_texts: lm"):
                submit([1], stop_texts=["a"])

    assert inspect.iscoroutinefunction(lm.generate_async)
    asyncio.run(wrong())
