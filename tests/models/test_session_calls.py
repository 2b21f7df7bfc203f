"""Calls on sessions: streams, ends, errors, and what happens at the end of the context."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import (
    BusyError,
    ContextLengthError,
    DisposedTensorError,
    InvalidArgumentError,
    NumericalError,
)
from gpt2_wgpu.models import session_cache
from gpt2_wgpu.models.decode_run import DecodeRun
from tests.models.session_models import PROMPT, go_on, model_of, new_ids

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    with model_of() as lm:
        yield lm


# --- streams, ends and errors --------------------------------------------------------------------


def test_a_stream_that_is_closed_leaves_what_was_read(text_lm):
    with text_lm.session("The wolf") as session:
        expected = session.generate(12, stop_token_ids=None)
        session.rewind(12)
        with session.stream(12, stop_token_ids=None) as stream:
            pieces = [next(stream) for _ in range(3)]
            with pytest.raises(BusyError, match="this session is generating"):
                session.append("x")
            read = list(stream.stats.token_ids)
        assert expected.startswith("".join(pieces))
        assert session.token_ids[-len(read) :] == read
        assert len(session) == 3 + len(read) == 3 + 3
        rest = "".join(session.stream(9, stop_token_ids=None))
        assert "".join(pieces) + rest == expected


def test_a_forgotten_stream_ends(text_lm):
    with text_lm.session("The wolf") as session:
        next(session.stream(12, stop_token_ids=None))
        assert len(session.generate(3, stop_token_ids=None, return_details=True).token_ids) == 3


def test_closing_a_session_ends_its_stream(text_lm):
    session = text_lm.session("The wolf")
    stream = session.stream(12, stop_token_ids=None)
    next(stream)
    session.close()
    assert len(list(stream)) < 11
    with pytest.raises(DisposedTensorError, match="closed"):
        session.generate(1)


def test_closing_a_session_within_its_call(text_lm):
    session = text_lm.session("The wolf")
    text = session.generate(12, stop_token_ids=None, callback=lambda *_: session.close())
    assert text
    with pytest.raises(DisposedTensorError, match="closed"):
        session.fork()


@pytest.mark.native("threads")
def test_closing_a_session_while_another_thread_computes(lm, monkeypatch):
    """The pages are in use, which that thread frees at the end of its call."""
    session = lm.session(PROMPT)
    go_on(session, 3)
    copied, closed = threading.Event(), threading.Event()
    load_page = session_cache.load_page

    def slow(*args):
        copied.set()
        assert closed.wait(60)
        load_page(*args)

    monkeypatch.setattr(session_cache, "load_page", slow)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(go_on, session, 30)
        assert copied.wait(60)
        session.close()
        closed.set()
        assert len(call.result(60)) < 30
    with pytest.raises(DisposedTensorError, match="closed"):
        session.fork()


@pytest.mark.native("asyncio.run")
def test_a_cancelled_task_leaves_the_session_as_it_was(text_lm):
    async def cancelled(session):
        task = asyncio.create_task(session.generate_async(40, stop_token_ids=None))
        await asyncio.sleep(0)
        assert session.token_ids == before
        with pytest.raises(BusyError):
            session.append("x")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with text_lm.session("The wolf") as session, session.fork() as fork:
        before = session.token_ids
        asyncio.run(cancelled(session))
        assert session.token_ids == before
        assert go_on(session, 8) == go_on(fork, 8)


def test_the_async_forms(text_lm):
    async def both():
        async with text_lm.session("The wolf") as session:
            text = await session.generate_async(4, stop_token_ids=None)
            return text, [piece async for piece in session.stream(4, stop_token_ids=None)]

    text, pieces = gw.webgpu.sync(both(), "")
    expected = text_lm.generate(
        "The wolf", max_new_tokens=8, stop_token_ids=None, strip_prompt=True
    )
    assert text + "".join(pieces) == expected


def test_ends(text_lm):
    tokenizer = text_lm.preprocessor.tokenizer
    with text_lm.session("The wolf") as session:
        whole = session.generate(12, stop_token_ids=None, return_details=True)
        assert whole.finish_reason == "length"
        ids = whole.token_ids
        text, last = tokenizer.decode(ids[:4]), tokenizer.decode(ids[3:4])
        session.rewind(12)
        options = {"stop_token_ids": None, "return_details": True}
        details = session.generate(12, stop_texts=[last], top_logprobs=2, **options)
        assert details.finish_reason == "stop_text"
        assert (details.text + last, details.token_ids) == (text, ids[:4])
        assert session.text == "The wolf" + text
        assert len(details.logprobs) == len(details.top_logprobs) == 4
        session.rewind(4)
        seen = []

        def four(row, token, piece):
            seen.append(piece)
            return len(seen) < 4

        details = session.generate(12, callback=four, **options)
        assert (details.text, details.finish_reason) == (text, "aborted")
        assert len(session) == 3 + 4
        session.rewind(4)
        details = session.generate(12, stop_token_ids=[ids[3]], return_details=True)
        assert (details.finish_reason, details.token_ids) == ("stop", ids[:4])
        assert session.token_ids[3:] == ids[:4]


def test_calls_that_are_cancelled_keep_their_tokens(text_lm):
    cancellation = gw.Cancellation()
    options = {"stop_token_ids": None, "cancellation": cancellation}
    with text_lm.session("The wolf") as session, session.fork() as fork:
        expected = fork.generate(40, stop_token_ids=None)
        details = session.generate(
            40, return_details=True, callback=lambda *_: cancellation.cancel(), **options
        )
        assert details.finish_reason == "aborted"
        assert 0 < len(details.token_ids) < 40
        assert session.token_ids[3:] == details.token_ids
        assert session.generate(40, **options) == ""
        stream = session.stream(37, **options)
        assert (list(stream), stream.stats.finish_reason) == ([], "aborted")
        stream = session.stream(37, stop_token_ids=None)
        pieces = [next(stream)]
        stream.cancel()
        pieces += list(stream)
        left = 40 - len(details.token_ids) - stream.stats.new_tokens
        rest = session.generate(left, stop_token_ids=None)
        assert details.text + "".join(pieces) + rest == expected
        assert session.generate(40, time_limit=1e-6, return_details=True).text == ""


def test_a_call_that_fails_leaves_the_session_as_it_was(text_lm, monkeypatch):
    with text_lm.session("The wolf") as session:
        session.generate(3, stop_token_ids=None)
        before, cached = session.token_ids, session.cached_tokens
        expected = session.generate(6, stop_token_ids=None)
        session.rewind(6)

        def failing(row, token, text):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            session.generate(6, stop_token_ids=None, callback=failing)
        assert (session.token_ids, session.cached_tokens) == (before, cached)

        async def broken(self):
            raise NumericalError("not finite")

        with monkeypatch.context() as patch:
            patch.setattr(DecodeRun, "result", broken)
            with pytest.raises(NumericalError):
                session.generate(6, stop_token_ids=None)
        assert (session.token_ids, session.cached_tokens) == (before, cached)
        assert session.generate(6, stop_token_ids=None) == expected


ERRORS = {
    "has no tokens": lambda s: [s.rewind(len(s)), s.generate(1)],
    "tokens must be": lambda s: s.rewind(len(s) + 1),
    "a str or one list of ids": lambda s: s.append([[1, 2]]),
    "a str or one list of ids, not b'x'": lambda s: s.append(b"x"),
    "max_new_tokens must be": lambda s: s.generate(0),
    "BeamSampler replaces the sampling loop": lambda s: s.generate(1, sampler="beam"),
    "give one seed": lambda s: s.generate(1, seed=[1, 2], sampler="random"),
    r"must be in \[0, 4096\)": lambda s: s.append([4096]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(text_lm, message):
    with text_lm.session("The wolf") as session:
        with pytest.raises(InvalidArgumentError, match=message):
            ERRORS[message](session)
        session.append("s")
        assert session.generate(1, stop_token_ids=None)


def test_steps_of_a_user(text_lm):
    class Own(gw.GPT2CausalLM):
        calls = 0

        def call_with_cache(self, *args, **kwargs):
            self.calls += 1
            return super().call_with_cache(*args, **kwargs)

        def generate_step(self, *args, **kwargs):
            return super().generate_step(*args, **kwargs)

    own = Own(text_lm.backbone, text_lm.preprocessor)
    own.compile("greedy")
    with (
        own.session("The wolf") as session,
        pytest.raises(InvalidArgumentError, match="generate_step is replaced"),
    ):
        session.generate(4)
    del Own.generate_step
    with own.session("The wolf") as session, text_lm.session("The wolf") as expected:
        for _ in range(2):
            assert session.generate(4, stop_token_ids=None) == expected.generate(
                4, stop_token_ids=None
            )
            session.append("x")
            expected.append("x")
        assert own.calls > 0


# --- the context ---------------------------------------------------------------------------------


def test_a_full_session(lm):
    with lm.session(PROMPT, max_length=40) as session:
        assert len(go_on(session, None)) == 10
        with pytest.raises(ContextLengthError, match="40 tokens fill its 40 positions"):
            go_on(session, 1)
        with pytest.raises(ContextLengthError, match="would have 41 tokens, but only 40 fit"):
            session.append([1])
        with pytest.raises(ContextLengthError, match=r"41 tokens.*: shorten the text"):
            session.edit([1] * 41)
        assert len(session) == 40
        session.rewind(5)
        assert len(go_on(session, 20)) == 5
    with pytest.raises(ContextLengthError, match="only 29 fit: shorten the prompt, or begin one"):
        lm.session(PROMPT, max_length=29)
    with pytest.raises(InvalidArgumentError, match="context_policy must be one of"):
        lm.session(PROMPT, context_policy="left")
    with pytest.raises(InvalidArgumentError, match="needs max_length 4"):
        lm.session([1], context_policy="slide", max_length=3)


def test_truncate_left(lm):
    options = {"max_length": 40, "context_policy": "truncate_left"}
    with lm.session(PROMPT, **options) as session:
        first = go_on(session, 10)
        assert session.dropped_tokens == 0
        second = go_on(session, 15)  # the newest 25 and 15 more
        kept = (PROMPT + first)[-25:]
        assert second == new_ids(lm, kept, 15, "greedy")
        assert session.token_ids == kept + second
        assert session.dropped_tokens == 15
        session.append([1] * 100)
        third = go_on(session, 39)
        assert third == new_ids(lm, [1], 39, "greedy")
        with pytest.raises(ContextLengthError, match="at most 39 can"):
            go_on(session, 40)
        assert len(go_on(session, None)) == 20


def test_slide(lm):
    sampler = samplers.Random(seed=9)
    with lm.session(PROMPT, max_length=40, context_policy="slide") as session:
        found = go_on(session, 65, "random", seed=9)
        assert len(found) == 65
        assert session.token_ids == (PROMPT + found)[-len(session) :]
        assert session.dropped_tokens == 60
        assert len(session) == 35
        assert found[:10] == new_ids(lm, PROMPT, 10, sampler)
    # From position 20 on again, but with other random numbers.
    assert found[10:30] != new_ids(lm, (PROMPT + found)[20:40], 20, samplers.Random(seed=9))
    with lm.session(PROMPT, max_length=40, context_policy="slide") as session:
        pieces = [go_on(session, count, "random", seed=9) for count in (7, 30, 28)]
        assert [token for piece in pieces for token in piece] == found
        with pytest.raises(InvalidArgumentError, match="give max_new_tokens"):
            go_on(session, None)


def test_a_start_token_is_never_dropped(text_lm):
    start = text_lm.preprocessor.tokenizer.start_token_id
    with text_lm.session("The wolf", max_length=20, context_policy="slide") as session:
        pieces = session.stream(stop_token_ids=None)
        text = "".join(next(pieces) for _ in range(50))
        pieces.close()
        assert session.token_ids[0] == start
        assert start not in session.token_ids[1:]
        assert text.endswith(session.text)
        assert 10 <= len(session) <= 20
    assert pieces.stats.finish_reason == "aborted"


@pytest.mark.parametrize("policy", ["slide", "truncate_left"])
def test_a_call_that_fails_drops_nothing(lm, policy):
    def fail(*_):
        raise KeyError("callback")

    with lm.session(range(90), max_length=100, context_policy=policy) as session:
        session.generate(5, stop_token_ids=None)
        before = session.token_ids
        with pytest.raises(KeyError):
            session.generate(60, stop_token_ids=None, callback=fail)
        assert (session.token_ids, session.dropped_tokens) == (before, 0)
        session.generate(3, stop_token_ids=None)
        assert session.token_ids[:-3] == before


def test_details_of_a_text_that_slides(lm):
    with lm.session(range(90), max_length=100, context_policy="slide") as session:
        assert len(session.generate(10, stop_token_ids=None, return_details=True).logprobs) == 10
        with pytest.raises(InvalidArgumentError, match="all 130 tokens within the session's 100"):
            session.generate(30, stop_token_ids=None, return_details=True)
        assert len(session) == 100


def test_close_ends_a_call_that_waits_for_its_turn(text_lm):
    async def run():
        read, closed = asyncio.Event(), asyncio.Event()

        async def reading():  # has the turn
            with text_lm.stream("The king") as stream:
                async for _ in stream:
                    read.set()
                    await closed.wait()
                    return

        async def closing(session):
            await read.wait()
            waiting = asyncio.create_task(session.generate_async(5))
            await asyncio.sleep(0)
            session.close()
            text = await asyncio.wait_for(waiting, 60)
            closed.set()
            return text

        with text_lm.session("Once") as session:
            _, text = await asyncio.gather(reading(), closing(session))
            return text

    assert asyncio.run(run()) == ""


def test_a_stream_that_fails_keeps_the_pieces_that_were_read(text_lm, monkeypatch):
    result = DecodeRun.result
    results = []

    async def failing(self):
        results.append(self)
        if len(results) == 3:
            raise KeyError("injected")
        return await result(self)

    with text_lm.session("Once upon") as session:
        before, stream = session.token_ids, session.stream(40)
        monkeypatch.setattr(DecodeRun, "result", failing)
        with pytest.raises(KeyError):
            list(stream)
        assert session.token_ids == before + list(stream.stats.token_ids) != before
