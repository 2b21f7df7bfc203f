"""The end of turns, and of waiting for them, in threads."""

from __future__ import annotations

import _thread
import gc
from threading import Barrier, Event

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.models.search_step import SearchStep
from gpt2_wgpu.models.turns import Turns
from gpt2_wgpu.webgpu import sync
from tests.memory.tiny import ENDLESS, TIMEOUT_S

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("threads")]


@pytest.mark.parametrize("end", ["close", "drop", "read", "error"])
def test_the_end_of_a_stream_ends_its_turn(lm, other, monkeypatch, end):
    stream = lm.stream("a", **ENDLESS)
    next(stream)
    waiting = other(lm.generate, "b", **ENDLESS)
    while not lm.turns._waiting:
        pass
    if end == "close":
        stream.close()
    elif end == "drop":
        del stream
        gc.collect()
    elif end == "read":
        list(stream)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(DecodeRun, "result", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                list(stream)
    assert waiting.result(TIMEOUT_S) == lm.generate("b", **ENDLESS)


@pytest.mark.parametrize("end", ["cancellation", "time_limit"])
def test_the_end_of_a_call_that_waits(lm, other, end):
    """It ends without tokens, and computes nothing."""
    cancellation = gw.Cancellation()
    options = {"cancellation": cancellation} if end == "cancellation" else {"time_limit": 0.1}
    with lm.stream("a", **ENDLESS) as stream:
        next(stream)
        call = other(lm.generate, "b", return_details=True, **ENDLESS, **options)
        while not lm.turns._waiting:
            pass
        if end == "cancellation":
            cancellation.cancel()
        details = call.result(TIMEOUT_S)
        assert not lm.turns._waiting
    reason = "aborted" if end == "cancellation" else "time_limit"
    assert (details.text, details.token_ids, details.finish_reason) == ("b", [], reason)


def test_an_interrupted_thread_leaves_the_queue(lm, other):
    """By Ctrl-C, which Python raises in the main thread."""
    begun, release = Event(), Event()

    def hold():
        with lm.stream("a", **ENDLESS) as stream:
            next(stream)
            begun.set()
            assert release.wait(TIMEOUT_S)

    def interrupt():
        while not lm.turns._waiting:
            pass
        _thread.interrupt_main()

    holder = other(hold)
    assert begun.wait(TIMEOUT_S)
    interrupter = other(interrupt)
    with pytest.raises(KeyboardInterrupt):
        lm.generate("b", **ENDLESS)
    interrupter.result(TIMEOUT_S)
    assert not lm.turns._waiting
    release.set()
    holder.result(TIMEOUT_S)


def test_many_threads_have_one_turn_at_a_time(other):
    """Some give up while they wait; each of the others has its turn."""
    turns, held, most, served = Turns(), [], [], []
    start = Barrier(4)

    def run(thread):
        start.wait(TIMEOUT_S)
        for number in range(40):
            turn = turns.turn(Control(1e-4 if number % 4 == 3 else None))
            try:
                if sync(turn.take(), "take"):
                    held.append(thread)
                    most.append(len(held))
                    served.append(number)
                    held.remove(thread)
            finally:
                turn.give_back()

    for call in [other(run, thread) for thread in range(4)]:
        call.result(TIMEOUT_S)
    assert {*most} == {1}
    assert len([number for number in served if number % 4 < 3]) == 4 * 30
    assert not turns._running and not turns._waiting


@pytest.mark.parametrize(
    ("moment", "wait"), [("would_block", True), ("would_block", False), ("leave", False)]
)
def test_a_turn_that_begins_while_it_is_checked(other, monkeypatch, moment, wait):
    """It runs: it is no turn of another that this thread blocks, and no reason to give up."""
    turns = Turns()
    holder = other(turns.turn).result(TIMEOUT_S)  # the pool's thread stays alive
    assert other(sync, holder.take(), "take").result(TIMEOUT_S)
    check = getattr(turns, moment)

    def after_the_end(turn):
        holder.give_back()
        return check(turn)

    monkeypatch.setattr(turns, moment, after_the_end)
    turn = turns.turn(wait=wait)
    assert sync(turn.take(), "take")
    assert turns._running == [turn]
    turn.give_back()
    assert not turns._running and not turns._waiting


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_a_stream_whose_reader_waits_is_ended_by_another_thread(lm, other, end):
    with lm.stream("a", **ENDLESS) as first:
        next(first)
        stream = other(lambda: lm.stream("b", **ENDLESS)).result(TIMEOUT_S)
        reading = other(list, stream)
        while not lm.turns._waiting:
            pass
        getattr(stream, end)()
        assert reading.result(TIMEOUT_S) == []
        assert stream.stats.finish_reason == "aborted"
        assert next(first)


def test_a_search_is_ended_by_closing_its_stream(lm, other, monkeypatch):
    """It does not go on to its end, although its text arrives whole."""
    begun, closed, steps = Event(), Event(), []
    run = SearchStep.run

    async def slow(self, *arguments):
        steps.append(arguments)
        begun.set()
        assert closed.wait(TIMEOUT_S)
        return await run(self, *arguments)

    monkeypatch.setattr(SearchStep, "run", slow)
    stream = lm.stream("b", sampler="beam", **ENDLESS)
    reading = other(list, stream)
    assert begun.wait(TIMEOUT_S)
    stream.close()
    closed.set()
    assert reading.result(TIMEOUT_S) == []
    assert len(steps) == 1


def test_streams_may_be_read_by_another_thread_than_made_them(lm, other):
    """Its reader takes part in the turn, as does the thread that made it."""
    expected = [lm.generate(name, **ENDLESS)[1:] for name in "ab"]
    made = [lm.stream(name, **ENDLESS) for name in "ab"]

    def read():
        texts = ["", ""]
        own = lm.stream("a", **ENDLESS)
        for _ in range(24):
            for index, stream in enumerate(made):
                texts[index] += next(stream, "")
            next(own, None)
        own.close()
        return texts

    assert other(read).result(TIMEOUT_S) == expected
    assert all(next(stream, None) is None for stream in made)
