"""Errors raised at every dispatch, bind, upload, submit, read and allocation of a model's calls.

After each, all counters are what they were, without garbage collection, and the next text is right.
"""

from __future__ import annotations

import asyncio
import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError, OutOfGPUMemoryError
from gpt2_wgpu.nn import SamplingState
from gpt2_wgpu.webgpu import Readback, Recording, queue, recording
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.pipelines import PipelineCache
from gpt2_wgpu.webgpu.queue import CommandQueue
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")


class Fault(BaseException):
    """Not an Exception: what holds for Ctrl-C holds for everything."""


@dataclass
class Place:
    """A function that may raise; ``least``: how often one short text calls it, at least."""

    owner: object
    name: str
    least: int

    def fail(self, patch, at, error, times=1):
        """Raise at calls ``at`` .. of the place; return a function that counts the calls."""
        calls, function = 0, getattr(self.owner, self.name)

        def failing(*args, **kwargs):
            nonlocal calls
            calls += 1
            if at <= calls < at + times:
                raise error
            return function(*args, **kwargs)

        patch.setattr(self.owner, self.name, failing)
        return lambda: calls


DISPATCHES = {
    "recorded dispatch": Place(Recording, "add", 24),
    "recorded bind": Place(recording, "wanted_group", 24),
    "kernel": Place(PipelineCache, "get", 12),
}
EAGER = {
    "eager dispatch": Place(CommandQueue, "add", 2),
    "eager bind": Place(queue, "wanted_group", 2),
}
TRANSFERS = {
    "upload": Place(CommandQueue, "upload", 8),
    "submit": Place(CommandQueue, "_submit", 2),
    "read-back": Place(Readback, "__init__", 1),
    "read": Place(Readback, "begin", 2),
    "sampling state": Place(SamplingState, "create", 1),
    "recording": Place(Recording, "_finish", 2),
}
ALLOCATIONS = {"allocation": Place(BufferPool, "allocate", 24)}


@pytest.fixture(autouse=True)
def nothing_for_the_collector(monkeypatch):
    """The counters must be right by themselves, not because garbage was collected."""
    lost = tiny.record_lost(monkeypatch)
    gc.disable()
    yield
    gc.enable()
    assert lost == []


def attempts(
    device: gw.Device,
    place: Place,
    work: Callable[[], object],
    error: BaseException,
    times: int = 1,
    raises: type[BaseException] | None = None,
) -> int:
    """Fail ``work`` at the first call of ``place``, the second and so on, until it is through."""
    raises = raises or type(error)
    before = tiny.counters(device, collect=False)
    at = 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            calls = place.fail(patch, at, error, times)
            try:
                work()
            except raises:
                error.__traceback__ = error.__context__ = None  # which hold the tensors of frames
                assert calls() >= at
            else:
                assert calls() < at, f"the raise at call {at} of {place.name} was swallowed"
                return at - 1
        found = tiny.counters(device, collect=False)
        assert found == before, f"after a raise at call {at} of {place.name}"


GENERATING = DISPATCHES | TRANSFERS | ALLOCATIONS
PLACES = GENERATING | EAGER


@pytest.fixture(params=list(GENERATING.values()), ids=list(GENERATING))
def place(request):
    return request.param


def fresh_text(lm, prompts, length):
    """The text, without recordings of an earlier one."""
    lm.compile("greedy")
    return tiny.text_of(lm, prompts, length)


def error_for(place):
    if place.name == "allocate":
        return OutOfGPUMemoryError("rejected by the test")
    return Fault("injected")


# --- generation -----------------------------------------------------------------------------------


@pytest.mark.chromium_cases()
def test_a_fault_anywhere_in_a_generation(device, lm, place):
    """Prefill, recorded step, submits: the next text is right after each."""
    prompts, length = [[1, 2, 3], [4]], 6
    expected = tiny.text_of(lm, prompts, length)
    rights = []

    def work():
        rights.append(fresh_text(lm, prompts, length))

    count = attempts(device, place, work, error_for(place))
    assert count >= place.least
    assert rights == [expected]
    assert tiny.text_of(lm, prompts, length) == expected


@pytest.mark.parametrize("text", [fresh_text, tiny.text_of], ids=["recorded", "kept"])
@pytest.mark.parametrize("name", ["recorded bind", "upload", "submit", "allocation"])
def test_the_text_right_after_each_fault(device, lm, name, text):
    """Of a generation that records, and of one that uses what the text before has recorded."""
    place, prompts, length = PLACES[name], [[1, 2, 3]], 8
    expected = tiny.text_of(lm, prompts, length)
    at, through = 0, False
    while not through:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            calls = place.fail(patch, at, error_for(place))
            with_fault = outcome(lambda: text(lm, prompts, length))
            through = calls() < at
        assert with_fault == (expected if through else None)
        assert tiny.text_of(lm, prompts, length) == expected
    kept_least = 0 if name == "recorded bind" else 2
    assert at > (place.least // 2 if text is fresh_text else kept_least)


def outcome(work):
    try:
        return work()
    except (Fault, OutOfGPUMemoryError):
        return None


def test_a_fault_that_lasts_until_everything_is_cleared_up(device, lm):
    """Submits fail from some moment on, those of freeing included; then they work again."""
    expected = tiny.text_of(lm, [[1, 2, 3]], 8)
    error = wgpu.GPUInternalError("rejected by the test")
    place = Place(device.gpu.queue, "submit", 3)

    def work():
        fresh_text(lm, [[1, 2, 3]], 8)

    assert attempts(device, place, work, error, 1000, raises=DeviceError) >= place.least
    assert tiny.text_of(lm, [[1, 2, 3]], 8) == expected


def test_a_fault_in_a_chunked_prefill(device, lm, capabilities):
    capabilities(prefill_rows=8)  # halved: so is what a tiny model may take
    prompts = [list(range(1, 9)), list(range(2, 9))]  # no row leaves, which may fail unnoticed
    expected = tiny.text_of(lm, prompts, 12)
    for name in ("recorded dispatch", "read", "allocation"):
        place = PLACES[name]
        found = attempts(device, place, lambda: fresh_text(lm, prompts, 12), error_for(place))
        assert found > place.least
        assert tiny.text_of(lm, prompts, 12) == expected


@pytest.mark.parametrize("name", ["recorded dispatch", "recorded bind", "read", "allocation"])
def test_a_fault_in_a_stream(device, lm, name):
    place = PLACES[name]

    def work():
        lm.compile("greedy")
        return list(lm.stream("abc", max_new_tokens=4, stop_token_ids=None))

    expected = work()
    assert attempts(device, place, work, error_for(place)) >= min(place.least, 10)
    assert work() == expected


# --- the pieces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eager dispatch", "eager bind", "kernel", "upload", "allocation"])
def test_a_fault_in_the_models_calls(device, lm, name):
    place = PLACES[name]
    inputs = {"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 0]]}
    for piece in (lambda: lm.backbone(inputs), lambda: lm.build_cache([[1, 2, 3]])):

        def work(piece=piece):
            gw.dispose(piece())

        assert attempts(device, place, work, error_for(place)) >= 2


def test_a_fault_in_call_with_cache_leaves_the_cache_usable(device, lm):
    cache = lm.backbone.new_cache(1, 8)
    place = PLACES["eager dispatch"]

    def work():
        logits, hidden, _ = lm.call_with_cache([[1, 2]], cache, 0)
        gw.dispose([logits, hidden])

    assert attempts(device, place, work, error_for(place)) >= 13
    assert not cache.disposed
    cache.dispose()


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eager dispatch", "eager bind", "submit", "upload", "allocation"])
def test_a_fault_anywhere_while_loading(device, name):
    place = PLACES[name]
    count = attempts(device, place, lambda: tiny.backbone().dispose(), error_for(place))
    assert count >= (1 if name in TRANSFERS else 28)


def test_a_fault_in_the_source_of_weights(device, tmp_path):
    """A file that ends in the middle, a progress bar that raises, Ctrl-C between two tensors."""
    before, seen = tiny.counters(device, collect=False), []

    def progress(done, total):
        seen.append(done)
        if len(seen) == 9:
            raise Fault("injected")

    with pytest.raises(Fault):
        gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", on_progress=progress)
    assert len(seen) == 9
    assert tiny.counters(device, collect=False) == before


# --- tasks ----------------------------------------------------------------------------------------


def test_a_task_cancelled_at_any_wait(device, lm):
    inputs = tiny.packed([[1, 2, 3], [4]], 20)
    expected = tiny.ids_of(lm.generate(inputs, stop_token_ids=None))
    before = tiny.counters(device, collect=False)

    async def cancelled(turns):
        task = asyncio.create_task(lm.generate_async(inputs, stop_token_ids=None))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or tiny.ids_of(task.result()) == expected
        await lm.backbone.weights.ln_f.weight.data()  # the loop outlives what the task waited for
        return finished

    turns, finished = 0, False
    while not finished and turns < 150:
        finished = asyncio.run(cancelled(turns))
        assert tiny.counters(device, collect=False) == before
        turns += 1 if turns < 20 else 10
    assert tiny.ids_of(lm.generate(inputs, stop_token_ids=None)) == expected


def test_one_task_fails_and_the_other_goes_on(device, lm):
    """A fault in one generation leaves another one's text as it is."""
    inputs = tiny.packed([[1, 2, 3]], 30)
    expected = tiny.ids_of(lm.generate(inputs, stop_token_ids=None))

    async def failing():
        with pytest.MonkeyPatch.context() as patch:
            PLACES["recorded bind"].fail(patch, 3, Fault("injected"))
            other = copy.copy(lm)  # which does not wait for the turn of the first
            await other.generate_async(tiny.packed([[7]], 30), stop_token_ids=None)

    async def both():
        good = asyncio.create_task(lm.generate_async(inputs, stop_token_ids=None))
        while not gw.memory(device).by_kind["parameters"]:
            await asyncio.sleep(0)  # until it has recorded: the fault is the other's
        with pytest.raises(Fault):
            await failing()
        return tiny.ids_of(await good)

    assert asyncio.run(both()) == expected
