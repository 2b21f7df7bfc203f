"""Memory budget: clear errors, no side effects, raised early."""

from __future__ import annotations

import asyncio
import re

import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError, InvalidArgumentError, OutOfGPUMemoryError
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.webgpu.capabilities import default_budget
from gpt2_wgpu.webgpu.queue import CommandQueue
from gpt2_wgpu.webgpu.storage import KINDS, size_class
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

MEBIBYTE = 1 << 20


def new(nbytes, value=1.0):
    return gw.tensor([value] * (nbytes // 4))


def leave(nbytes):
    """Set the budget so that ``nbytes`` more fit."""
    gw.set_memory_budget(gw.memory().num_bytes_in_gpu + nbytes)


def pooled():
    info = gw.memory()
    return info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu


# --- the refusal ----------------------------------------------------------------------------------


def test_the_refusal_says_what_was_asked_what_is_held_and_what_to_do(lm):
    cache = lm.backbone.new_cache(1, 8)
    held = gw.memory()
    leave(4096)
    with pytest.raises(OutOfGPUMemoryError) as rejected:
        new(MEBIBYTE)
    message = str(rejected.value)
    assert "the memory budget rejects 1,048,576 bytes for a workspace buffer" in message
    assert f"{held.num_bytes_in_gpu:,} bytes are in use" in message
    for kind in KINDS:
        named = re.search(rf"{kind} ([\d,]+)", message.split("in use")[1])
        assert (named is not None) == (held.by_kind[kind] > 0)
        assert not named or int(named[1].replace(",", "")) == held.by_kind[kind]
    assert f"of a budget of {gw.memory().budget:,}" in message
    assert "dispose tensors" in message and "set_memory_budget" in message
    assert isinstance(rejected.value, DeviceError) and isinstance(rejected.value, MemoryError)
    assert "\n" not in message
    cache.dispose()


def test_earlier_tensors_stay_valid_and_the_next_smaller_request_succeeds():
    first = new(4096, 3.0)
    pending = first + 1
    leave(8192 + 4096)  # reading takes memory, too
    for _ in range(3):
        with pytest.raises(OutOfGPUMemoryError):
            new(MEBIBYTE)
    smaller = new(8192, 5.0)
    assert set(first.tolist()) == {3.0}
    assert set(pending.tolist()) == {4.0}
    gw.dispose([smaller, first, pending])


def test_the_budget_counts_to_the_byte():
    leave(size_class(10_000))
    with pytest.raises(OutOfGPUMemoryError):
        new(size_class(10_000) + 4)
    exact = new(10_000)
    with pytest.raises(OutOfGPUMemoryError):
        new(4)
    exact.dispose()
    new(size_class(10_000)).dispose()


def test_disposing_makes_room():
    leave(MEBIBYTE)
    first = new(MEBIBYTE)
    with pytest.raises(OutOfGPUMemoryError):
        new(4)
    view = first.view((1, first.size))
    first.dispose()
    with pytest.raises(OutOfGPUMemoryError):  # a view still holds it
        new(4)
    view.dispose()
    new(MEBIBYTE).dispose()


def test_garbage_makes_room():
    leave(MEBIBYTE)
    new(MEBIBYTE)  # neither disposed nor reachable
    new(MEBIBYTE).dispose()


def test_a_budget_raised_again_works():
    before = gw.memory().budget
    leave(4096)
    with pytest.raises(OutOfGPUMemoryError):
        new(MEBIBYTE)
    gw.set_memory_budget(before)
    new(MEBIBYTE).dispose()


def test_a_budget_below_what_lives_frees_nothing_and_refuses_everything():
    x = new(4096, 2.0)
    gw.set_memory_budget(1)
    assert gw.memory().budget == 1
    with pytest.raises(OutOfGPUMemoryError):
        new(4)
    gw.set_memory_budget(gw.memory().num_bytes_in_gpu + 8192)
    assert set(x.tolist()) == {2.0}
    x.dispose()


@pytest.mark.parametrize("nbytes", [0, -1, 1.5, "1 GB", True])
def test_a_budget_is_a_positive_number_of_bytes(nbytes):
    with pytest.raises(InvalidArgumentError, match="a positive number of bytes"):
        gw.set_memory_budget(nbytes)


def test_none_is_the_default_budget_again(device):
    default = default_budget(device.info)
    gw.set_memory_budget(4096)
    gw.set_memory_budget(None)
    assert gw.memory().budget == default
    new(MEBIBYTE).dispose()


def test_each_device_has_its_own():
    with gw.Device() as other:
        gw.set_memory_budget(4096, other)
        with pytest.raises(OutOfGPUMemoryError):
            gw.tensor([1.0] * 4096, device=other)
        assert gw.memory(other).budget == 4096
    new(MEBIBYTE).dispose()


# --- the pool -------------------------------------------------------------------------------------


def test_pooled_buffers_do_not_stand_in_the_way():
    gw.dispose([new(MEBIBYTE), new(2 * MEBIBYTE)])
    assert pooled() >= 3 * MEBIBYTE
    leave(5 * MEBIBYTE // 2)
    assert pooled() <= 5 * MEBIBYTE // 2  # what is pooled is in the driver's memory, too
    other = new(5 * MEBIBYTE // 2)  # a size that is not pooled
    info = gw.memory()
    assert info.num_bytes_allocated_in_gpu <= info.budget
    other.dispose()


def test_live_and_pooled_never_exceed_the_budget():
    leave(MEBIBYTE)
    for kibibytes in (300, 500, 700, 900, 200, 1000, 100):
        new(kibibytes << 10).dispose()
        info = gw.memory()
        assert info.num_bytes_allocated_in_gpu <= info.budget
    gw.trim()
    assert pooled() == 0


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture
def uploads(monkeypatch):
    """All calls of the device during a test."""
    found, upload = [], CommandQueue.upload

    def noted(self, storage, offset, data):
        found.append(memoryview(data).nbytes)
        return upload(self, storage, offset, data)

    monkeypatch.setattr(CommandQueue, "upload", noted)
    return found


@pytest.mark.parametrize("dtype", WEIGHT_FORMATS)
@pytest.mark.parametrize("missing", [1, 10_000])
def test_weights_that_do_not_fit_are_refused_before_any_upload(uploads, lm, missing, dtype):
    leave(stored_bytes(lm.backbone.config, dtype) - missing)
    before = gw.memory()
    with pytest.raises(OutOfGPUMemoryError, match=f"bytes for the weights in {dtype}"):
        gw.GPT2Backbone(257, 2, 2, 16, 32, max_sequence_length=tiny.CONTEXT, dtype=dtype)
    assert uploads == []
    assert gw.memory().num_bytes_allocated_in_gpu == before.num_bytes_allocated_in_gpu


def test_weights_refused_half_way_leave_nothing(lm):
    """Padding and size classes may decide only while loading."""
    needed = stored_bytes(lm.backbone.config, "float32")
    held, rejected = gw.memory().num_bytes_in_gpu, 0
    for extra in range(0, 40_000, 2000):
        leave(needed + extra)
        try:
            tiny.backbone().dispose()
        except OutOfGPUMemoryError:
            rejected += 1
        assert gw.memory().num_bytes_in_gpu == held
    assert 0 < rejected < 20  # in the end it fits


def test_a_preset_that_does_not_fit_is_refused_before_any_upload(uploads):
    leave(100_000)
    with pytest.raises(OutOfGPUMemoryError, match="for the weights in float16"):
        gw.GPT2CausalLM.from_preset("fairytales", dtype="float16")
    assert uploads == []


def test_a_batch_that_does_not_fit_leaves_a_model_that_works(lm):
    expected = tiny.text_of(lm)
    gw.trim()
    leave(40_000)
    with pytest.raises(OutOfGPUMemoryError, match="use a smaller batch"):
        tiny.text_of(lm, [[1, 2, 3]] * 40, tiny.CONTEXT)
    assert tiny.text_of(lm) == expected


def test_a_generation_goes_on_beside_a_refused_one(lm):
    lm.compile(sampler="greedy")
    expected = list(lm.stream("abc", max_new_tokens=20, stop_token_ids=None))
    stream = lm.stream("abc", max_new_tokens=20, stop_token_ids=None)
    pieces = [next(stream)]
    leave(512)
    with pytest.raises(OutOfGPUMemoryError):
        tiny.text_of(lm, [[1, 2, 3]] * 8, 40)
    pieces += list(stream)
    assert pieces == expected


# --- the driver -----------------------------------------------------------------------------------


def reject(device, monkeypatch, error, times=10_000):
    """Let the driver reject the next buffers; a list of the requests."""
    asked, create = [], device.gpu.create_buffer

    def create_buffer(**kwargs):
        asked.append(kwargs["size"])
        if len(asked) <= times:
            raise error
        return create(**kwargs)

    monkeypatch.setattr(device.gpu, "create_buffer", create_buffer)
    return asked


DRIVER_ERRORS = [
    wgpu.GPUOutOfMemoryError("Out of memory"),
    wgpu.GPUValidationError("In wgpuDeviceCreateBuffer\n  Not enough memory left."),
]


@pytest.mark.parametrize("error", DRIVER_ERRORS, ids=["out of memory", "validation"])
def test_the_drivers_own_refusal_is_translated(device, monkeypatch, error):
    kept = new(4096, 2.0)
    gw.trim()
    with monkeypatch.context() as patch:
        reject(device, patch, error)
        with pytest.raises(OutOfGPUMemoryError) as rejected:
            new(MEBIBYTE)
    message = str(rejected.value)
    assert f"the driver of {device.info.name} rejects 1,048,576 bytes" in message
    assert "workspace" in message and "dispose tensors" in message and "\n" not in message
    assert device.is_open and set(kept.tolist()) == {2.0}
    new(MEBIBYTE).dispose()
    kept.dispose()


def test_the_driver_is_asked_again_with_an_empty_pool(device, monkeypatch):
    new(MEBIBYTE).dispose()
    assert pooled()
    asked = reject(device, monkeypatch, wgpu.GPUOutOfMemoryError("Out of memory"), times=1)
    x = new(2 * MEBIBYTE, 2.0)
    assert asked == [2 * MEBIBYTE] * 2 and pooled() == 0
    assert set(x.tolist()) == {2.0}
    x.dispose()


def test_a_raise_is_the_same_for_awaited_calls(lm):
    leave(4096)

    async def generate():
        await lm.generate_async(tiny.packed([[1, 2]] * 8, 40), stop_token_ids=None)

    with pytest.raises(OutOfGPUMemoryError, match="the memory budget rejects"):
        asyncio.run(generate())
