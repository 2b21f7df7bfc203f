"""Short soak test: constant counters, process memory within noise."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from array import array
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

# Counters are checked after every round; the growth of the process natively only, over all rounds.
LESS = 4 if sys.platform == "emscripten" else 1  # inside a browser: a quarter of the long ones
NOISE = 1 << 20  # bytes: what an allocator keeps back or not between two looks


def process_bytes():
    """Anonymous memory of this process, the GPU's on a software adapter included."""
    if sys.platform != "linux":
        return 0
    gc.collect()
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Soak:
    """Looks at the counters after every round, and at the process after a quarter and the end."""

    def __init__(self, device, rounds):
        self._device, self._rounds = device, rounds
        self._before = tiny.counters(device)
        self._quarter = 0

    def __iter__(self):
        for index in range(self._rounds):
            yield index
            found = tiny.counters(self._device, collect=False)
            assert found == self._before, f"after round {index}"
            if index == self._rounds // 4:
                self._quarter = process_bytes()
        assert process_bytes() - self._quarter < NOISE
        info = gw.memory(self._device)
        pooled = info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu
        assert pooled <= self._device.memory.pool_limit


def test_a_thousand_generations(device, lm):
    """Of mixed lengths and batch sizes; the first text is also the last. In a browser, 250."""
    chance = random.Random(7)
    expected = tiny.text_of(lm)
    for _ in Soak(device, 1000 // LESS):
        rows = chance.choice([1, 1, 1, 2, 3, 5])
        prompts = [
            [chance.randrange(257) for _ in range(chance.randrange(1, 9))] for _ in range(rows)
        ]
        length = max(map(len, prompts)) + chance.choice([0, 1, 2, 5, 8])
        assert len(tiny.text_of(lm, prompts, length)) == rows
    assert tiny.text_of(lm) == expected


def test_fifty_loads(device):
    """Each as a whole: load, write, dispose; every fifth is not disposed."""
    texts = []
    for index in Soak(device, 50):
        lm = tiny.model(device, seed=3)
        texts.append(tiny.text_of(lm))
        if index % 5:
            lm.dispose()
        del lm
        gc.collect()
    assert texts == texts[:1] * 50


def test_fifty_loads_of_a_checkpoint_that_fail_half_way(device):
    """As a user who stops the download of a model, again and again."""

    class Stopped(Exception):
        pass

    for index in Soak(device, 50):
        calls = 0

        def progress(done, total, last=index % 8 + 1):
            nonlocal calls
            calls += 1
            if calls == last:
                raise Stopped

        with pytest.raises(Stopped):
            gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", on_progress=progress)


def closed(lm):
    with lm.stream("Once", max_new_tokens=20, stop_token_ids=None) as stream:
        next(stream)
        next(stream)


def dropped(lm):
    stream = lm.stream("upon a", max_new_tokens=20, stop_token_ids=None)
    next(stream)
    del stream


def never_read(lm):
    lm.stream("upon a", max_new_tokens=20)


def raised(lm):
    with pytest.raises(KeyError):
        for piece in lm.stream("time", max_new_tokens=20, stop_token_ids=None):
            raise KeyError(piece)


def stopped(lm):
    for _ in lm.stream("time", max_new_tokens=20, stop_token_ids=None):
        break


def cancelled(lm):
    async def read():
        async for _ in lm.stream("there", max_new_tokens=30, stop_token_ids=None):
            await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(read())
        await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def closed_elsewhere(lm):
    async def main():
        stream = lm.stream("was", max_new_tokens=30, stop_token_ids=None)
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await stream.aclose()
        await asyncio.wait([first])
        first.exception()

    asyncio.run(main())


ENDS = [closed, dropped, never_read, raised, stopped, cancelled, closed_elsewhere]


def test_two_hundred_aborted_streams(device, lm):
    expected = list(lm.stream("Once", max_new_tokens=10, stop_token_ids=None))
    for index in Soak(device, 200 // LESS):
        ENDS[index % len(ENDS)](lm)
        gc.collect(0)
    assert list(lm.stream("Once", max_new_tokens=10, stop_token_ids=None)) == expected


@pytest.mark.native("/proc: the memory of the process")
def test_models_on_devices_of_their_own():
    """A software driver's compiled kernels take some 8 MiB a device: they come and go with it."""
    before = 0
    for index in range(13):
        with gw.Device() as own:
            lm = tiny.model(own)
            tiny.text_of(lm)
            lm.dispose()
            assert gw.memory(own).num_tensors == 0
        del own, lm
        gc.collect()  # a device is part of cycles: its memory must not wait for a chance collection
        if index == 6:
            before = process_bytes()
    assert process_bytes() - before < 24 << 20  # half of what six would leave


@pytest.mark.native("a way to lose a device")
def test_a_device_lost_before_a_submit_frees_its_memory():
    """As one lost in mid-text does: wgpu must not keep a command buffer of it."""
    before = 0
    for index in range(8):
        lost = gw.Device()
        x = gw.tensor(array("f", bytes(32 << 20)), device=lost)
        y = gw.tensor([0.0], device=lost)
        assert y.tolist() == [0.0]  # what was uploaded is there
        lost.gpu.destroy()
        flush_promises(lost.gpu)
        with pytest.raises(DeviceLostError):
            lost.queue.copy(x.storage, y.storage, 4)
        del lost, x, y
        if index == 3:
            before = process_bytes()
    assert process_bytes() - before < 64 << 20  # half of what four would leave
