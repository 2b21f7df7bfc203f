"""Order of encoding, submits and waits of a decoding loop that is awaited."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import decoding
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.webgpu import Readback, queue
from gpt2_wgpu.webgpu.queue import CommandQueue

pytestmark = pytest.mark.native("browsers submit ahead")

PROMPTS = [[1, 2, 3], [9], [4, 5, 6, 7, 8]]


@pytest.fixture(scope="module")
def lm(device):
    backbone = gw.GPT2Backbone(
        99, 2, 2, 32, 64, max_sequence_length=128, initializer_range=0.2, device=device
    )
    yield gw.GPT2CausalLM(backbone)
    backbone.dispose()


async def rows_of(lm, limits=(100, 100, 100), stops=(), after=lambda: None):
    """The rows of a sampled generation; ``after`` is called between two submits."""
    options = samplers.Random(seed=5).next_options()
    run = Generation(lm, PROMPTS, limits, options, list(stops))
    try:
        while not run.done:
            await run.advance()
            after()
        return [list(row) for row in run._rows]
    finally:
        run.close()


@pytest.fixture
def events(monkeypatch):
    """What happened to recorded steps, in order: encoded, submitted, awaited, read."""
    found = []
    encode, submit, finish = queue.encode, CommandQueue._encode_and_submit, Readback.finish

    def encoded(compute, batch):
        if batch.bundle is not None:
            found.append("encode")
        encode(compute, batch)

    def submitted(*arguments):
        submit(*arguments)
        found.append("submit")

    async def awaited(readback):
        found.append("wait")
        data = await finish(readback)
        found.append("read")
        return data

    monkeypatch.setattr(queue, "encode", encoded)
    monkeypatch.setattr(CommandQueue, "_encode_and_submit", submitted)
    monkeypatch.setattr(Readback, "finish", awaited)
    return found


def test_the_next_steps_are_encoded_while_others_run(lm, events):
    expected = asyncio.run(rows_of(lm))
    events.clear()
    assert asyncio.run(rows_of(lm)) == expected
    steady = events[events.index("wait") - 3 :]  # without the prefill
    rounds = [each.strip() for each in " ".join(steady).split("submit")[1:]]
    assert len(rounds) > 5
    assert set(rounds[:-1]) == {"encode wait read"}
    assert rounds[-1] == "wait read"  # no steps are left to encode


@pytest.mark.parametrize("limits", [(100, 100, 100), (9, 30, 100)], ids=["equal", "ragged"])
def test_tokens_are_those_of_steps_encoded_afterwards(lm, monkeypatch, limits):
    """Also where rows leave the step, and others use the queue between encoding and submit."""
    found = asyncio.run(rows_of(lm, limits))
    used = asyncio.run(rows_of(lm, limits, after=lambda: gw.tensor([1.0], device=lm.device)))

    async def never(generation, run):
        return False

    monkeypatch.setattr(decoding.Generation, "_submit_later", never)
    assert asyncio.run(rows_of(lm, limits)) == found == used


def test_steps_of_a_cancelled_task_change_nothing(lm):
    """They are submitted before the next work on the device."""
    before = gw.memory(lm.device).num_bytes
    expected = asyncio.run(rows_of(lm))

    async def cancelled():
        task = asyncio.create_task(rows_of(lm))
        while lm.device.queue._encoder is None:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert gw.memory(lm.device).num_bytes == before
    assert asyncio.run(rows_of(lm)) == expected
