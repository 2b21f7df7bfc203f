"""Rows that join and leave a batch between steps have the ids of the prompt alone."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import (
    ContextLengthError,
    DeviceLostError,
    InvalidArgumentError,
    NumericalError,
)
from gpt2_wgpu.models import continuous_batch, row_prefill
from gpt2_wgpu.models.row_group import RowGroup, _Submit
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.models.batch_rows import (
    CONTEXT,
    SAMPLERS,
    WITH_RULES,
    alone,
    jobs_of,
    model_of,
    read,
    run,
)

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module", params=["float32", "float16", "q8"])
def lm(request, device):
    with model_of(request.param, device) as lm:
        yield lm


@pytest.mark.parametrize("options", [SAMPLERS, WITH_RULES + SAMPLERS[:1]], ids=["own", "groups"])
@pytest.mark.chromium_cases("lm")
def test_rows_are_those_alone(lm, options):
    jobs = list(jobs_of(14, 3, options))
    found, rows = asyncio.run(run(lm, jobs, 5))
    reasons = set()
    for ids, row, (prompt, limit, given) in zip(found, rows, jobs, strict=True):
        assert ids == row.token_ids == alone(lm, prompt, limit, **given)
        reasons.add(row.finish_reason)
        stopped = given["stop_token_ids"] and ids[-1] in given["stop_token_ids"]
        full = "context" if len(prompt) + len(ids) == CONTEXT else "length"
        assert row.finish_reason == ("stop" if stopped else full)
    assert reasons == {"stop", "length", "context"}


@pytest.fixture
def submits(monkeypatch):
    """(key, rows, steps) of each submit."""
    found = []
    submit = RowGroup.submit

    async def noted(group, shortest, later=False):
        await submit(group, shortest, later)
        last = group._submits[-1]
        found.append((group.key, last.rows, last.steps))

    monkeypatch.setattr(RowGroup, "submit", noted)
    return found


@pytest.fixture(scope="module")
def one(device):
    with model_of("float32", device) as lm:
        yield lm


def test_rows_share_steps_and_groups_take_turns(one, submits, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            rows = [
                batch.submit(
                    [seed], max_new_tokens=40, sampler=sampler, seed=seed, stop_token_ids=None
                )
                for seed, sampler in enumerate([*SAMPLERS, *WITH_RULES])
            ]
            return await asyncio.gather(*map(read, rows))

    asyncio.run(texts())
    sizes = {}
    for key, rows, _ in submits:
        sizes[key] = max(sizes.get(key, 0), len(rows))
    assert sorted(sizes.values()) == [1] * len(WITH_RULES) + [len(SAMPLERS)]
    order = [key for key, _, _ in submits]
    begun = max(map(order.index, sizes))
    ended = min(len(order) - order[::-1].index(key) for key in sizes)
    shared = order[begun:ended]
    assert len(shared) > 20
    assert all(a != b for a, b in pairwise(shared))


def test_steps_are_encoded_while_others_run(one, monkeypatch):
    """Where a submit would block the event loop; rows join and leave when nothing runs."""
    monkeypatch.setattr(continuous_batch, "can_submit_ahead", lambda: False)
    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit
    events = []

    def noted(owner, method, event):
        call = getattr(owner, method)

        def noting(group, *arguments):
            events.append(event(*arguments))
            return call(group, *arguments)

        monkeypatch.setattr(owner, method, noting)

    noted(RowGroup, "submit", lambda shortest, later: "encode" if later else "submit")
    noted(RowGroup, "begin", lambda: "begin")
    noted(RowGroup, "collect", lambda then: "collect")
    noted(RowGroup, "join", lambda row, cache: "join")

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            rows = [batch.submit([1], max_new_tokens=30, stop_token_ids=None)]
            await anext(rows[0])
            rows += [batch.submit([2], max_new_tokens=9, stop_token_ids=None)]
            await asyncio.gather(*map(read, rows))
            return [row.token_ids for row in rows]

    found = asyncio.run(texts())
    assert found == [
        alone(one, [1], 30, stop_token_ids=None),
        alone(one, [2], 9, stop_token_ids=None),
    ]
    assert events.count("join") == 2
    assert events.count("encode") == events.count("begin") > 20
    running = 0  # submits
    for event, following in pairwise(events):
        assert event != "join" or running == 0
        assert event != "submit" or running == 0
        assert event != "encode" or (running == 1 and following == "collect")
        running += {"submit": 1, "begin": 1, "collect": -1}.get(event, 0)
    assert (running, events[-1]) == (1, "collect")


def test_the_time_of_encoded_steps_begins_with_their_submit():
    """Before it the steps of another group ran."""
    group = object.__new__(RowGroup)
    readback: Any = SimpleNamespace(begin=lambda: None)
    group._later = readback
    group._submits = deque([_Submit(1, 0.0, (), readback), _Submit(1, 0.0, (), readback)])
    before = time.perf_counter()
    group.begin()
    assert [submit.begun >= before for submit in group._submits] == [False, True]


def test_a_row_can_be_cancelled_in_any_state(one, monkeypatch):
    monkeypatch.setattr(row_prefill, "chunk_rows", lambda *_: 2)
    prompts = [[1, 2, 3], [4], [9, 8, 7, 6, 5, 4, 3, 2, 1], [5, 6]]

    async def texts():
        async with gw.ContinuousBatch(one, max_rows=3) as batch:
            ended, running, joining, waiting = (
                batch.submit(prompt, max_new_tokens=1 if place == 0 else 30, stop_token_ids=None)
                for place, prompt in enumerate(prompts)
            )
            await read(ended)
            while batch._joining is not joining._state:
                await asyncio.sleep(0)
            assert batch.stats().waiting == 1
            joining.cancel()
            waiting.cancel()
            assert batch.stats().waiting == 0
            first = await anext(running)
            running.cancel()
            ended.cancel()
            again = batch.submit(prompts[1], max_new_tokens=30, stop_token_ids=None)
            found = await read(again)
            assert [*first, *await read(running)] == running.token_ids == found[: len(first)]
            for row in (joining, waiting):
                assert await read(row) == []
            while batch._task is not None and not batch._task.done():
                await asyncio.sleep(0)
            assert not batch._rows()
            rows = (ended, running, joining, waiting, again)
            return found, [row.finish_reason for row in rows]

    found, reasons = asyncio.run(texts())
    assert reasons == ["length", "aborted", "aborted", "aborted", "length"]
    assert found == alone(one, prompts[1], 30, stop_token_ids=None)


def test_closing_ends_all_rows(one):
    async def run():
        batch = gw.ContinuousBatch(one, max_rows=2)
        rows = [batch.submit([7, n], stop_token_ids=None) for n in range(4)]
        await anext(rows[0])
        await batch.close()
        await batch.close()
        assert [row.finish_reason for row in rows] == ["aborted"] * 4
        for row in rows[1:]:
            await read(row)
        with pytest.raises(InvalidArgumentError, match="closed"):
            batch.submit([1])
        return rows  # and with them nothing on the GPU

    asyncio.run(run())


@pytest.mark.native("a page's event loop does not end")
def test_an_event_loop_that_ends_frees_everything(one):
    async def run():
        batch = gw.ContinuousBatch(one)
        row = batch.submit([7], stop_token_ids=None)
        await anext(row)
        return row

    assert asyncio.run(run()).finish_reason == "aborted"


def test_chunks_of_a_long_prompt_come_between_steps(one, submits, monkeypatch):
    size, prompt = 4, [(5 * t + t * t) % 257 for t in range(30)]
    monkeypatch.setattr(row_prefill, "chunk_rows", lambda *_: size)
    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit
    seen = []
    chunks = row_prefill.RowPrefill.chunks

    async def noted(self, row, limit):
        async for _ in chunks(self, row, limit):
            seen.append(len(submits))
            yield

    monkeypatch.setattr(row_prefill.RowPrefill, "chunks", noted)

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            short = batch.submit([1], max_new_tokens=30, stop_token_ids=None)
            await anext(short)
            long = batch.submit(prompt, max_new_tokens=5, stop_token_ids=None)
            return await asyncio.gather(read(short), read(long))

    _, found = asyncio.run(texts())
    assert len(seen) == -(-(len(prompt) - 1) // size)
    assert all(a < b for a, b in pairwise(seen))  # each waits for a submit
    assert len(found) == 5


def test_an_error_of_a_row_is_its_own(one):
    nothing = samplers.Greedy(suppress_tokens=list(range(257)))

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            good = batch.submit([3], max_new_tokens=12, stop_token_ids=None)
            bad = batch.submit([3], max_new_tokens=12, sampler=nothing, stop_token_ids=None)
            with pytest.raises(NumericalError, match="every token of this row is excluded"):
                await read(bad)
            assert bad.finish_reason == "error"
            return await read(good)

    assert asyncio.run(texts()) == alone(one, [3], 12, stop_token_ids=None)


def test_an_error_of_the_batch_ends_all_rows_and_nothing_else(one, monkeypatch):
    async def texts():
        async with gw.ContinuousBatch(one, max_rows=1) as batch:
            with monkeypatch.context() as patch:
                patch.setattr(RowGroup, "collect", lambda *_: asyncio.sleep(-1, 1 / 0))
                rows = [batch.submit([n], stop_token_ids=None) for n in range(3)]
                for row in rows:
                    with pytest.raises(ZeroDivisionError):
                        await read(row)
            return await read(batch.submit([3], max_new_tokens=12, stop_token_ids=None))

    assert asyncio.run(texts()) == alone(one, [3], 12, stop_token_ids=None)


def test_without_memory_for_another_row_it_waits(one, device):
    """Three places need twice the memory of two."""
    row_bytes = one.backbone.new_cache(1, CONTEXT)
    nbytes = sum(layer.nbytes for layer in row_bytes.children)
    row_bytes.dispose()
    gw.trim()  # buffers that other tests have freed

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            first = batch.submit([1], max_new_tokens=40, stop_token_ids=None)
            await anext(first)
            gc.collect()  # what other tests have left may not make room later
            gw.trim()
            gw.set_memory_budget(gw.memory(device).num_bytes_in_gpu + nbytes // 2, device=device)
            second = batch.submit([2], max_new_tokens=3, stop_token_ids=None)
            while second.finish_reason is None and first.finish_reason is None:
                assert len(batch._placed()) <= 2
                await asyncio.sleep(0)
            assert second.token_ids == []
            return first.token_ids, await read(second)

    try:
        first, second = asyncio.run(texts())
    finally:
        gw.set_memory_budget(None, device=device)
    assert len(first) == 40
    assert second == alone(one, [2], 3, stop_token_ids=None)


def test_a_scope_of_the_caller_does_not_own_the_batch(one):
    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            async with gw.tidy():
                row = batch.submit([3], max_new_tokens=30, stop_token_ids=None)
                first = await anext(row)
            return [*first, *await read(row)]

    assert asyncio.run(texts()) == alone(one, [3], 30, stop_token_ids=None)


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ([], {}, InvalidArgumentError, "at least one id"),
        ([257], {}, InvalidArgumentError, "257"),
        ([1] * 20, {}, ContextLengthError, "at most 19"),
        ("one", {}, InvalidArgumentError, r"not the text 'one': encode it first, lm\.encode_p"),
        ([1], {"max_new_tokens": 0}, InvalidArgumentError, "max_new_tokens.*2147483647"),
        ([1], {"seed": -1, "sampler": "random"}, InvalidArgumentError, "seed"),
        ([1], {"sampler": "beam"}, InvalidArgumentError, "use generate"),
        ([1], {"stop_token_ids": "auto"}, InvalidArgumentError, "preprocessor"),
    ],
)
def test_invalid_rows_are_rejected_at_once(one, prompt, options, error, message):
    async def submit():
        async with gw.ContinuousBatch(one, max_length=20) as batch:
            with pytest.raises(error, match=message):
                batch.submit(prompt, **{"stop_token_ids": None} | options)
            assert batch.stats() == gw.BatchStats(0, 0, 0, 0)
            row = batch.submit([1], stop_token_ids=None)
            assert len(await read(row)) == 19 and row.finish_reason == "length"

    asyncio.run(submit())


def test_models_whose_steps_are_replaced_are_rejected(one, monkeypatch):
    one.compile("greedy", logits_processors=[lambda _, logits: logits])
    with pytest.raises(InvalidArgumentError, match="logits processors"):
        gw.ContinuousBatch(one)
    one.compile("greedy")

    other = gw.GPT2CausalLM(one.backbone)
    monkeypatch.setattr(other, "call_with_cache", lambda *_: None)
    with pytest.raises(InvalidArgumentError, match="replaces call_with_cache"):
        gw.ContinuousBatch(other)


@pytest.mark.native("losing a device")
@pytest.mark.parametrize("dtype", ["float32", "q8"])
def test_rows_go_on_after_the_loss_of_the_device(dtype, submits):
    lost = gw.Device()
    lm = model_of(dtype, lost)
    prompts = [[1, 2, 3], [4], [9, 8, 7, 6, 5], [100], [7, 7]]

    numbers = []

    async def texts(lose):
        async with gw.ContinuousBatch(lm, max_rows=3) as batch:
            rows = [
                batch.submit(prompt, max_new_tokens=40, sampler="random", seed=n,
                             stop_token_ids=None, top_logprobs=0)
                for n, prompt in enumerate(prompts)
            ]  # fmt: skip
            reading = [asyncio.ensure_future(read(row)) for row in rows]
            while lose and len(rows[1].token_ids) < 8:
                await asyncio.sleep(0)
            if lose:
                assert len(batch._placed()) == 3
                lost.gpu.destroy()
                flush_promises(lost.gpu)
            found = await asyncio.gather(*reading, return_exceptions=True)
            numbers.append([row.logprobs().logprobs for row in rows])
            return found

    undisturbed = asyncio.run(texts(False))
    assert {len(ids) for ids in undisturbed} == {40}
    assert asyncio.run(texts(True)) == undisturbed
    for before, after in zip(*numbers, strict=True):
        assert after == pytest.approx(before, abs=1e-3 if dtype == "float32" else 0.1)
    assert lm.device is not lost
    assert gw.memory(lost).num_tensors == 0
    lm.device.gpu.destroy()  # a second time
    found = asyncio.run(texts(False))
    assert {type(error) for error in found} == {DeviceLostError}
    lm.dispose()
    lm.device.close()
    lost.close()
