"""Turns of the generations of one model: a queue for other threads and tasks, none within one."""

from __future__ import annotations

import asyncio
import math
from threading import Event

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import BusyError, InvalidArgumentError
from gpt2_wgpu.models import turns
from tests.memory.tiny import ENDLESS, TIMEOUT_S

pytestmark = pytest.mark.usefixtures("no_leak")

threads = pytest.mark.native("threads")


class Log:
    """The texts of calls, whose callbacks note their order."""

    def __init__(self, lm):
        self.lm, self.seen, self.texts = lm, [], {}

    def options(self, name):
        return {"callback": lambda *_: self.seen.append(name), **ENDLESS}

    def run(self, name):
        self.texts[name] = self.lm.generate(name, **self.options(name))

    async def run_async(self, name):
        self.texts[name] = await self.lm.generate_async(name, **self.options(name))

    def check(self, order):
        """Every text is whole, undisturbed and after the one before it."""
        assert self.seen == [name for name in order for _ in range(24)]
        for name in order:
            assert self.texts[name] == self.lm.generate(name, **ENDLESS)


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def test_tasks_take_turns_in_the_order_of_their_calls(lm):
    log = Log(lm)

    async def all_at_once():
        await asyncio.gather(*(log.run_async(name) for name in "abcd"))

    asyncio.run(all_at_once())
    log.check("abcd")


@threads
def test_threads_take_turns_in_the_order_of_their_calls(lm, other):
    log, begun, goes_on = Log(lm), Event(), Event()

    def first():
        def wait(*_):
            begun.set()
            assert goes_on.wait(TIMEOUT_S)
            log.seen.append("a")

        log.texts["a"] = lm.generate("a", callback=wait, **ENDLESS)

    calls = [other(first)]
    assert begun.wait(TIMEOUT_S)
    for name in "bc":
        calls.append(other(log.run, name))
        while len(lm.turns._waiting) < len(calls) - 1:
            pass
    assert not log.seen
    goes_on.set()
    for call in calls:
        call.result(TIMEOUT_S)
    log.check("abc")


@threads
def test_threads_and_tasks_wait_for_each_other(lm, other):
    log = Log(lm)

    async def main():
        tasks = [asyncio.create_task(log.run_async(name)) for name in "ab"]
        await until(lambda: log.seen)
        thread = other(log.run, "c")
        await asyncio.gather(*tasks)
        await asyncio.wrap_future(thread)

    asyncio.run(main())
    log.check("abc")


@threads
def test_busy_error_instead_of_waiting(lm, other):
    with lm.stream("a", **ENDLESS) as stream:
        next(stream)
        for call in (lm.generate, lambda *a, **k: next(lm.stream(*a, **k))):
            with pytest.raises(BusyError, match="wait is False"):
                other(call, "b", wait=False, **ENDLESS).result(TIMEOUT_S)
        assert lm.generate("b", wait=False, **ENDLESS)  # of this thread: within the stream
    assert other(lm.generate, "b", wait=False, **ENDLESS).result(TIMEOUT_S)
    with pytest.raises(InvalidArgumentError, match="wait must be"):
        lm.generate("b", wait=3)


@threads
def test_a_stream_that_was_busy_can_be_read_later(lm, other):
    with lm.stream("a", **ENDLESS) as stream:
        next(stream)
        late = other(lambda: lm.stream("b", wait=False, **ENDLESS)).result(TIMEOUT_S)
        with pytest.raises(BusyError, match="wait is False"):
            other(next, late).result(TIMEOUT_S)
    assert "b" + "".join(late) == lm.generate("b", **ENDLESS)


def test_a_call_within_a_generation_does_not_wait(lm):
    """In a callback, in the loop over a stream, and in tasks that this loop starts."""
    expected = lm.generate("b", **ENDLESS)
    found = []
    lm.generate("a", callback=lambda *_: found.append(lm.generate("b", **ENDLESS)) or False)

    async def main():
        async for _ in lm.stream("a", **ENDLESS):
            found.extend(await asyncio.gather(*(lm.generate_async("b", **ENDLESS),) * 2))
            break

    asyncio.run(main())
    assert found == [expected] * 3


def test_tasks_within_a_stream_take_turns(lm):
    log = Log(lm)

    async def main():
        async with lm.stream("x", **ENDLESS) as stream:
            await anext(stream)
            await asyncio.gather(*(log.run_async(name) for name in "abc"))

    asyncio.run(main())
    log.check("abc")


def test_streams_read_alternately_by_tasks_of_wait_for(lm):
    """Before Python 3.12 ``asyncio.wait_for`` reads each piece in a task of its own."""
    expected = [lm.generate(name, **ENDLESS)[1:] for name in "ab"]

    async def main():
        streams = [lm.stream(name, **ENDLESS) for name in "ab"]
        texts = ["", ""]
        for _ in range(24):
            for index, stream in enumerate(streams):
                reading = asyncio.create_task(anext(stream, ""))
                texts[index] += await asyncio.wait_for(reading, TIMEOUT_S)
        for stream in streams:
            stream.close()
        return texts

    found = asyncio.run(main())
    for text, whole in zip(found, expected, strict=True):
        assert len(text) > 5
        assert whole.startswith(text)


@pytest.mark.native("a blocking call")
def test_a_blocking_call_does_not_wait_for_a_task_that_it_blocks(lm):
    async def main():
        async def hold(begun):
            async for _ in lm.stream("a", **ENDLESS):
                begun.set()

        begun = asyncio.Event()
        task = asyncio.create_task(hold(begun))
        await begun.wait()
        with pytest.raises(BusyError, match="await generate_async"):
            lm.generate("b", **ENDLESS)
        await task
        return lm.generate("b", **ENDLESS)

    assert asyncio.run(main()) == lm.generate("b", **ENDLESS)


def test_a_stream_of_a_task_that_has_ended_does_not_block(lm):
    """As in a notebook, where each cell is a task. It has a turn again when it is read."""
    expected = lm.generate("a", **ENDLESS)

    async def main():
        async def cell():
            stream = lm.stream("a", **ENDLESS)
            return stream, await anext(stream)

        stream, text = await asyncio.create_task(cell())
        assert await lm.generate_async("b", wait=False, **ENDLESS)
        async for piece in stream:
            text += piece
        return "a" + text

    assert asyncio.run(main()) == expected


def test_a_stream_that_nothing_reads_lets_others_pass(lm, monkeypatch):
    """Its reader waits in a full queue, whose other end generates: neither could go on."""
    monkeypatch.setattr(turns, "IDLE_SECONDS", 0.01)
    expected = [lm.generate(name, **ENDLESS) for name in "ab"]

    async def main():
        pieces: asyncio.Queue[str | None] = asyncio.Queue(1)

        async def produce():
            async for piece in lm.stream("a", **ENDLESS):
                await pieces.put(piece)
            await pieces.put(None)

        producing, text = asyncio.create_task(produce()), "a"
        while (piece := await pieces.get()) is not None:
            if len(text) < 4:
                assert await lm.generate_async("b", **ENDLESS) == expected[1]
            text += piece
        await producing
        return text

    async def limited():
        return await asyncio.wait_for(main(), TIMEOUT_S)

    assert asyncio.run(limited()) == expected[0]


@pytest.mark.native("a blocking call")
@pytest.mark.parametrize("wait", [True, False])
def test_a_blocking_call_in_the_loop_over_a_lent_stream(lm, wait):
    """The other task cannot go on meanwhile, and both texts are undisturbed."""
    expected = [lm.generate(name, **ENDLESS) for name in "abc"]
    seen, nested = [], []

    async def other():
        text = "b"
        async for piece in lm.stream("b", **ENDLESS):
            seen.append(piece)
            text += piece
        return text

    async def main():
        text = "a"
        async with lm.stream("a", **ENDLESS) as stream:
            text += await anext(stream)
            (turn,) = lm.turns._running
            turn._idle_since = -math.inf
            task = asyncio.create_task(other())
            await until(lambda: seen)
            for _ in range(2):
                nested.append(lm.generate("c", wait=wait, **ENDLESS))
            assert not task.done()
            async for piece in stream:
                text += piece
            return text, await task

    async def limited():
        return await asyncio.wait_for(main(), TIMEOUT_S)

    assert asyncio.run(limited()) == (expected[0], expected[1])
    assert nested == expected[2:] * 2
    assert not lm.turns._lent and not lm.turns._running


@threads
def test_a_stream_goes_on_after_those_that_passed_it(lm, other, monkeypatch):
    log = Log(lm)
    with lm.stream("a", **ENDLESS) as stream:
        text = next(stream)
        monkeypatch.setattr(turns, "IDLE_SECONDS", 0.0)
        begun, goes_on = Event(), Event()

        def run():
            def wait(*_):
                begun.set()
                assert goes_on.wait(TIMEOUT_S)

            log.texts["b"] = lm.generate("b", callback=wait, **ENDLESS)

        passing = other(run)
        assert begun.wait(TIMEOUT_S)
        monkeypatch.setattr(turns, "IDLE_SECONDS", 600.0)
        reading = other("".join, stream)  # waits, where a piece has to be computed
        while not lm.turns._waiting:
            assert not passing.done()
        goes_on.set()
        text += reading.result(TIMEOUT_S)
        passing.result(TIMEOUT_S)
    assert ("a" + text, log.texts["b"]) == tuple(lm.generate(name, **ENDLESS) for name in "ab")


def test_a_cancelled_task_leaves_the_queue(lm):
    log = Log(lm)

    async def main():
        first, second, third = (asyncio.create_task(log.run_async(name)) for name in "abc")
        await until(lambda: len(lm.turns._waiting) == 2)
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert second.cancelled()

    asyncio.run(main())
    log.check("ac")


def test_other_models_and_copies_have_turns_of_their_own(lm):
    import copy

    copied = copy.copy(lm)

    async def main():
        async def hold():
            stream = lm.stream("a", **ENDLESS)
            await anext(stream)
            await asyncio.wait_for(release.wait(), TIMEOUT_S)
            stream.close()

        release = asyncio.Event()
        task = asyncio.create_task(hold())
        await until(lambda: lm.turns._running)
        text = await copied.generate_async("b", wait=False, **ENDLESS)
        release.set()
        await task
        return text

    assert asyncio.run(main()) == lm.generate("b", **ENDLESS)


def test_a_continuous_batch_has_the_turn_while_it_has_rows(lm):
    log = Log(lm)
    prompt = lm.preprocessor.encode_prompts(["a"])[0]

    async def main():
        async with gw.ContinuousBatch(lm) as batch:
            row = batch.submit(prompt, max_new_tokens=24, stop_token_ids=None)
            await anext(row)
            task = asyncio.create_task(log.run_async("b"))
            async for _ in row:
                assert not log.seen
            await task

    asyncio.run(main())
    log.check("b")


def test_a_continuous_batch_within_a_stream(lm):
    """It waits for the turns of others, but not for that of the one who waits for its rows."""
    prompt = lm.preprocessor.encode_prompts(["a"])[0]
    options = {"max_new_tokens": 4, "stop_token_ids": None}

    async def main():
        async with gw.ContinuousBatch(lm) as batch, lm.stream("x", **ENDLESS) as stream:
            await anext(stream)
            ids = [token async for new in batch.submit(prompt, **options) for token in new]
            assert len(ids) == 4
            async with gw.ContinuousBatch(lm) as other:
                row = await asyncio.create_task(submitted(other))  # by a task within, too
                assert len([token async for new in row for token in new]) == 4

    async def submitted(batch):
        return batch.submit(prompt, **options)

    asyncio.run(main())


def test_a_continuous_batch_that_waits_can_be_closed(lm):
    prompt = lm.preprocessor.encode_prompts(["a"])[0]

    async def main():
        async def hold():
            async for _ in lm.stream("a", **ENDLESS):
                begun.set()
                await release.wait()

        begun, release = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold())
        await begun.wait()
        async with gw.ContinuousBatch(lm) as batch:
            row = batch.submit(prompt, max_new_tokens=24, stop_token_ids=None)
            await until(lambda: lm.turns._waiting)
        assert (row.token_ids, row.finish_reason) == ([], "aborted")
        release.set()
        await holder

    asyncio.run(main())
