"""A continuous batch shares the turns of its model with other calls, and ends with the model."""

from __future__ import annotations

import asyncio
import gc

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import (
    BusyError,
    DisposedTensorError,
    InvalidArgumentError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.models.prefill import Prefill
from tests.memory import tiny
from tests.memory.tiny import packed
from tests.models.call_counts import FULL_SUBMITS
from tests.models.test_continuous_batch import CONTEXT, alone, one, read

pytestmark = pytest.mark.usefixtures("no_leak")
__all__ = ["one"]  # a fixture


def test_a_call_that_waits_comes_before_later_rows(one):
    inputs, ended = packed([[5, 6]], 12), []

    async def texts():
        async def call():
            await one.generate_async(inputs, stop_token_ids=None)
            ended.append("call")

        async def text(name, row):
            ids = await read(row)
            ended.append(name)
            return ids

        def submit(n):
            row = batch.submit([n], max_new_tokens=20, stop_token_ids=None)
            return asyncio.create_task(text(n, row))

        async with gw.ContinuousBatch(one, max_rows=2) as batch:
            first = [submit(1), submit(2)]
            while batch.stats().running < 2:
                await asyncio.sleep(0)
            calls = [asyncio.create_task(call())]
            while not one.turns._waiting:
                await asyncio.sleep(0)
            later = [submit(n) for n in range(3, 7)]
            while "call" not in ended:
                await asyncio.sleep(0)
            assert {1, 2} < set(ended)
            assert not {3, 4, 5, 6} & set(ended)
            calls.append(asyncio.create_task(call()))  # with rows in the queue it shares the turns
            found = await asyncio.gather(*first, *later)
            await asyncio.gather(*calls)
            return found

    found = asyncio.run(texts())
    one.kept_runs.close()
    for n, ids in enumerate(found, 1):
        assert ids == alone(one, [n], 20, stop_token_ids=None)


def test_a_call_that_got_the_turn_can_wait_for_a_row_of_the_queue(device, monkeypatch):
    monkeypatch.setattr(*FULL_SUBMITS)  # else the row has a turn during the stream
    lm = tiny.model(device)

    async def read_within_a_stream():
        async with gw.ContinuousBatch(lm, max_rows=1) as batch:
            running = batch.submit([1], max_new_tokens=20, stop_token_ids=None)
            await anext(running)
            row = batch.submit([2], max_new_tokens=3, stop_token_ids=None)
            async for _ in lm.stream("a", stop_token_ids=None, max_new_tokens=8):
                assert running.finish_reason
                if row.finish_reason is None:
                    assert row.token_ids == []
                    await read(row)
            return row.token_ids

    async def limited():
        return await asyncio.wait_for(read_within_a_stream(), 60)

    assert len(asyncio.run(limited())) == 3
    lm.dispose()


@pytest.mark.parametrize("waits", [False, True])
def test_disposing_the_model_ends_the_rows(device, waits):
    lm = gw.GPT2CausalLM(
        gw.GPT2Backbone(257, 2, 2, 64, 96, max_sequence_length=CONTEXT, initializer_range=0.5)
    )
    lm.compile("greedy")

    async def run():
        async with gw.ContinuousBatch(lm, max_rows=1) as batch:
            rows = [batch.submit([n], stop_token_ids=None) for n in range(1 + waits)]
            await anext(rows[0])
            lm.dispose()
            for row in rows:
                with pytest.raises(DisposedTensorError, match="disposed: load it again"):
                    await read(row)
                assert row.finish_reason == "error"
            assert len(rows[0].token_ids) < CONTEXT - 1
            with pytest.raises(DisposedTensorError):
                batch.submit([1])

    asyncio.run(run())


def test_one_task_reads_a_row(one):
    async def run():
        async with gw.ContinuousBatch(one) as batch:
            row = batch.submit([1], max_new_tokens=20, stop_token_ids=None)
            first = asyncio.create_task(read(row))
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="another task waits for the next ids"):
                await read(row)
            assert await first == row.token_ids
            assert await read(row) == []

    asyncio.run(run())


@pytest.mark.native("a page has an event loop at any time")
def test_submit_needs_an_event_loop(one):
    batch = gw.ContinuousBatch(one)
    with pytest.raises(InvalidArgumentError, match="running event loop, and there is none"):
        batch.submit([1], stop_token_ids=None)
    assert batch.stats().waiting == 0


def test_a_prompt_without_memory_waits_until_a_row_leaves(one, monkeypatch):
    rows = [([1], 30), ([2, 3, 4], 5)]
    expected = [alone(one, ids, count, stop_token_ids=None) for ids, count in rows]
    run_chunks, fails = Prefill.run_chunks, [True]

    def once(self, *args):
        if batch.stats().running and fails:
            fails.pop()
            raise OutOfGPUMemoryError("no memory for a chunk")
        return run_chunks(self, *args)

    async def texts():
        first = batch.submit([1], max_new_tokens=30, stop_token_ids=None)
        ids = await anext(aiter(first))
        second = batch.submit([2, 3, 4], max_new_tokens=5, stop_token_ids=None)
        found = await asyncio.gather(read(first), read(second))
        await batch.close()
        return [[*ids, *found[0]], found[1]]

    monkeypatch.setattr(Prefill, "run_chunks", once)
    batch = gw.ContinuousBatch(one)
    assert asyncio.run(texts()) == expected
    assert not fails


def test_a_close_that_is_cancelled_frees_the_memory(one, device):
    async def run():
        batch = gw.ContinuousBatch(one)
        row = batch.submit([1], max_new_tokens=40, stop_token_ids=None)
        await anext(aiter(row))
        closing = asyncio.create_task(batch.close())
        await asyncio.sleep(0)
        closing.cancel()
        task = batch._task
        assert task is not None
        await asyncio.wait([closing, task])
        return batch

    before = gw.memory(device).num_bytes
    batch = asyncio.run(run())
    assert gw.memory(device).num_bytes == before
    assert batch.stats().running == 0


@pytest.mark.parametrize("places", [1, 2])
def test_a_recording_without_memory_ends_no_other_row(one, monkeypatch, places):
    """Of a step with another place: the row waits. Of fewer rows than places: they go on."""
    lengths = {1: (30, 5), 2: (9, 30)}[places]
    jobs = list(zip(([1], [2, 3, 4]), lengths, strict=True))
    expected = [alone(one, ids, count, stop_token_ids=None) for ids, count in jobs]
    recorded, tried = DecodeStep.recorded, []

    async def fails_for_another_number_of_rows(self):
        tried.append(self)
        if len(tried) > places:
            raise OutOfGPUMemoryError("no memory for a recording")
        return await recorded(self)

    async def texts():
        first = batch.submit([1], max_new_tokens=lengths[0], stop_token_ids=None)
        await anext(first)
        second = batch.submit([2, 3, 4], max_new_tokens=lengths[1], stop_token_ids=None)
        await asyncio.gather(read(first), read(second))
        await batch.close()
        return [first.token_ids, second.token_ids]

    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit
    monkeypatch.setattr(DecodeStep, "recorded", fails_for_another_number_of_rows)
    batch = gw.ContinuousBatch(one)
    assert asyncio.run(texts()) == expected
    assert len(tried) == places + 1  # once for the same rows


def test_a_row_without_references_ends(one, monkeypatch):
    async def run():
        async with gw.ContinuousBatch(one, max_rows=1) as batch:
            running = batch.submit([1], max_new_tokens=40, stop_token_ids=None)
            await anext(running)
            waiting = batch.submit([2], max_new_tokens=40, stop_token_ids=None)
            kept = batch.submit([3], max_new_tokens=5, stop_token_ids=None)
            del running, waiting
            gc.collect()
            while kept.finish_reason is None:  # read or not
                await asyncio.sleep(0)
            assert batch.stats().tokens < 40
            return kept.token_ids

    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit
    assert asyncio.run(run()) == alone(one, [3], 5, stop_token_ids=None)
