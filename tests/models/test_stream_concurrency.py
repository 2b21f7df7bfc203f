"""Concurrent use of a stream: one caller is served, any task or thread may close it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import BusyError
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.text import StreamingDetokenizer

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("threads")]

TOKENS = 30
TIMEOUT_S = 60  # seconds after which a hanging thread is a failure


@pytest.fixture(scope="module")
def undisturbed(tales):
    """(pieces, ids) of the stream that each test disturbs."""
    tales.compile(sampler="greedy")
    stream = open_stream(tales)
    return list(stream), stream.stats.token_ids


def open_stream(tales):
    return tales.stream("The wolf", max_new_tokens=TOKENS, stop_token_ids=None)


@pytest.fixture
def on_submit(monkeypatch):
    """Calls a test's function whenever a stream is about to wait for the GPU."""
    hooks = []
    result = DecodeRun.result

    async def hooked(self):
        for hook in hooks:
            hook()
        return await result(self)

    monkeypatch.setattr(DecodeRun, "result", hooked)
    return hooks.append


@pytest.fixture
def held(on_submit):
    """(reached, allowed): a thread's stream stops before it first waits until it is allowed."""
    reached, allowed = Event(), Event()

    def hold():
        reached.set()
        assert allowed.wait(TIMEOUT_S)

    on_submit(hold)
    yield reached, allowed
    allowed.set()


@pytest.fixture
def other():
    """Runs a function in another thread: ``other(function).result(TIMEOUT_S)``."""
    with ThreadPoolExecutor(2) as pool:
        yield pool.submit


def collect(stream):
    """All pieces, and all ids as the stream gave them with its pieces."""
    pieces, ids = [], []
    for piece in stream:
        pieces.append(piece)
        ids += stream.last_token_ids
    return pieces, ids


async def collect_async(stream):
    pieces, ids = [], []
    async for piece in stream:
        pieces.append(piece)
        ids += stream.last_token_ids
    return pieces, ids


def assert_closed(stream, pieces, undisturbed):
    assert pieces == undisturbed[0][: len(pieces)]
    assert len(pieces) < len(undisturbed[0])
    assert stream.stats.finish_reason == "aborted"
    assert next(stream, None) is None


def test_a_second_task_is_refused_and_the_first_goes_on(tales, undisturbed, on_submit):
    async def two():
        waiting = asyncio.Event()
        on_submit(waiting.set)
        async with open_stream(tales) as stream:
            first = asyncio.create_task(collect_async(stream))
            rejected = 0
            while rejected < 3:
                waiting.clear()
                await waiting.wait()
                with pytest.raises(BusyError):
                    await anext(stream)
                rejected += 1
            assert stream.stats.finish_reason is None
            return await first, stream.stats

    found, stats = asyncio.run(two())
    assert found == undisturbed
    assert (stats.finish_reason, stats.token_ids) == ("length", undisturbed[1])


def test_a_second_thread_is_refused_and_the_first_goes_on(tales, undisturbed, held, other):
    reached, allowed = held
    with open_stream(tales) as stream:
        first = other(collect, stream)
        assert reached.wait(TIMEOUT_S)
        for _ in range(3):
            with pytest.raises(BusyError):
                next(stream)
        allowed.set()
        assert first.result(TIMEOUT_S) == undisturbed
        assert stream.stats.finish_reason == "length"


def test_a_second_thread_is_refused_between_two_waits_too(tales, undisturbed, monkeypatch, other):
    """The first thread is at work on tokens that came with the last submit."""
    reached, allowed = Event(), Event()
    push = StreamingDetokenizer.push

    def held_push(self, token):
        if not reached.is_set():
            reached.set()
            assert allowed.wait(TIMEOUT_S)
        return push(self, token)

    monkeypatch.setattr(StreamingDetokenizer, "push", held_push)
    with open_stream(tales) as stream:
        first = other(collect, stream)
        assert reached.wait(TIMEOUT_S)
        try:
            with pytest.raises(BusyError):
                next(stream)
        finally:
            allowed.set()
        assert first.result(TIMEOUT_S) == undisturbed


@pytest.mark.parametrize("submit", [1, 2, 4])
def test_closed_by_another_task(tales, undisturbed, on_submit, submit):
    before = gw.memory().num_bytes

    async def two():
        submits = asyncio.Semaphore(0)
        on_submit(submits.release)
        stream = open_stream(tales)
        first = asyncio.create_task(collect_async(stream))
        for _ in range(submit):
            await submits.acquire()
        await stream.aclose()
        pieces, _ = await first
        return stream, pieces

    stream, pieces = asyncio.run(two())
    assert_closed(stream, pieces, undisturbed)
    assert gw.memory().num_bytes == before


def test_closed_by_another_thread(tales, undisturbed, held, other):
    before = gw.memory().num_bytes
    reached, allowed = held
    stream = open_stream(tales)
    first = other(collect, stream)
    assert reached.wait(TIMEOUT_S)
    stream.close()
    allowed.set()
    pieces, _ = first.result(TIMEOUT_S)
    assert_closed(stream, pieces, undisturbed)
    assert gw.memory().num_bytes == before


@pytest.mark.parametrize("submits", range(6))  # 30 tokens take five or more
def test_closed_by_another_thread_at_any_moment(tales, undisturbed, on_submit, other, submits):
    """Nothing holds the first thread: it may be before, in or after its wait for the GPU."""
    before = gw.memory().num_bytes
    reached = Semaphore(0)
    on_submit(reached.release)
    stream = open_stream(tales)
    first = other(collect, stream)
    for _ in range(submits):
        assert reached.acquire(timeout=TIMEOUT_S)
    stream.close()
    pieces, _ = first.result(TIMEOUT_S)
    assert pieces == undisturbed[0][: len(pieces)]
    assert stream.stats.finish_reason in ("aborted", "length")
    assert gw.memory().num_bytes == before


def test_two_streams_in_two_threads_do_not_mix(tales, undisturbed, other):
    both = [other(collect, open_stream(tales)) for _ in range(2)]
    assert [thread.result(TIMEOUT_S) for thread in both] == [undisturbed] * 2
