"""Opening, limiting, replacing and closing devices, and what their failures say."""

from __future__ import annotations

import asyncio
import gc
import re
import types

import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import (
    DeviceLostError,
    InvalidArgumentError,
    LimitError,
    NoAdapterError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.webgpu import sync
from gpt2_wgpu.webgpu.adapter import request_adapter
from gpt2_wgpu.webgpu.capabilities import AdapterInfo


def test_info_and_limits(device):
    assert device.is_open
    assert device.info.backend in ("Vulkan", "Metal", "D3D12", "WebGPU")
    assert device.limits["max-storage-buffer-binding-size"] >= 128 << 20
    assert device.info.name in repr(device)


def test_software_adapters_are_known_by_type_or_name():
    assert AdapterInfo.from_adapter({"device": "x", "adapter_type": "CPU"}).is_software
    assert AdapterInfo.from_adapter({"architecture": "SwiftShader"}).is_software
    assert not AdapterInfo.from_adapter({"adapter_type": "DiscreteGPU"}).is_software


def test_the_innermost_with_is_the_default(device):
    assert gw.default_device() is device
    with gw.Device() as inner:
        assert gw.default_device() is inner
        with gw.Device() as innermost:
            assert gw.tensor([1.0]).device is innermost
        assert gw.default_device() is inner
        assert not innermost.is_open
    assert gw.default_device() is device


def test_created_asynchronously():
    async def use():
        opened = await gw.Device.create(power_preference="low-power")
        x = gw.tensor([1.0, 2.0], device=opened)
        values = (await x.data()).tolist()
        x.dispose()
        opened.close()
        opened.close()
        return values, opened

    values, opened = asyncio.run(use())
    assert values == [1.0, 2.0]
    assert not opened.is_open


def test_a_closed_device_says_so_and_its_tensors_can_go():
    with gw.Device() as closed:
        x = gw.tensor([1.0])
        y = gw.tensor([2.0])
    for use in (x.tolist, lambda: x + x, lambda: gw.tensor([1.0], device=closed)):
        with pytest.raises(DeviceLostError, match="is gone"):
            use()
    x.dispose()
    del y
    gc.collect()
    assert gw.memory(closed).num_tensors == 0


@pytest.mark.parametrize("size", [4, 300])
def test_closing_while_a_task_reads_ends_the_read(size):
    async def use():
        opened = await gw.Device.create()
        x = gw.tensor([[1.0] * size] * size, device=opened)
        y = gw.ops.matmul(x, x)
        reading = asyncio.create_task(y.data())
        await asyncio.sleep(0)  # it waits for the GPU now
        opened.close()
        outcome = await asyncio.wait_for(asyncio.gather(reading, return_exceptions=True), 30)
        gw.dispose([x, y])
        return outcome[0]

    outcome = asyncio.run(use())
    if isinstance(outcome, DeviceLostError):
        assert re.search(r"closed while it was read|lost \(destroyed", str(outcome))
    else:  # a fast GPU had finished
        assert outcome.tolist() == [[float(size)] * size] * size


def test_a_destroyed_device_is_lost_at_the_next_use():
    lost = gw.Device()
    x = gw.tensor([1.0, 2.0], device=lost)
    lost.gpu.destroy()
    with pytest.raises(DeviceLostError, match="is gone"):
        (x + x).numpy()
    x.dispose()
    lost.close()


def test_a_loss_with_work_pending_can_be_cleaned_up():
    lost = gw.Device()
    a = gw.tensor([1.0, 2.0], device=lost)
    b = a + a
    c = gw.tensors.empty(lost, (2,), kind="weights")  # not pooled: to free it is to submit first
    lost.gpu.destroy()
    gw.dispose([a, b, c])
    assert all(tensor.disposed for tensor in (a, b, c))
    lost.close()
    assert not lost.is_open
    info = gw.memory(lost)
    assert (info.num_tensors, info.num_bytes, info.num_bytes_allocated_in_gpu) == (0, 0, 0)


def test_default_limits_and_own_limits():
    with gw.Device(limits="default") as small:
        assert small.limits["max-storage-buffer-binding-size"] == 128 << 20
        with pytest.raises(LimitError, match=r"exceeds this device's limit of 268,435,456"):
            gw.tensors.empty(small, (300 << 20,))
    with gw.Device(limits={"max-buffer-size": 64 << 20}) as own:
        assert own.limits["max-buffer-size"] >= 64 << 20


def test_an_adapter_is_named_by_index_or_by_a_part_of_its_name(device):
    listed = gw.adapters()
    assert listed
    assert not [info for info in listed if info.backend.startswith("OpenGL")]
    for index, info in enumerate(listed):
        with gw.Device(adapter=index) as opened:
            assert opened.info == info
            assert gw.tensor([1.0, 2.0]).tolist() == [1.0, 2.0]
    with gw.Device(adapter=listed[-1].name[1:].upper()) as opened:
        assert opened.info.name == listed[-1].name


def test_the_adapter_is_the_one_that_is_named(monkeypatch):
    def fake(name, backend="Vulkan"):
        return types.SimpleNamespace(info={"device": name, "backend_type": backend})

    three = [fake("A"), fake("A", "OpenGL"), fake("B"), fake("B")]

    class Promise:
        def sync_wait(self):
            return three

        def __await__(self):
            return three
            yield

    monkeypatch.setattr(wgpu.gpu, "enumerate_adapters_async", Promise)
    assert [info.name for info in gw.adapters()] == ["A", "B", "B"]
    chosen = {
        wanted: sync(request_adapter("low-power", wanted), "") for wanted in (0, 1, 2, "a", "B")
    }
    assert chosen == {0: three[0], 1: three[2], 2: three[3], "a": three[0], "B": three[2]}
    assert [*map(id, chosen.values())] == [id(three[i]) for i in (0, 2, 3, 0, 2)]


def test_a_replacement_is_sought_on_the_same_adapter(monkeypatch):
    asked = []
    honest = request_adapter

    async def noted(*arguments):
        asked.append(arguments)
        return await honest(*arguments)

    monkeypatch.setattr("gpt2_wgpu.webgpu.device.request_adapter", noted)
    with gw.Device(adapter=0) as first:
        sync(first.reopened(), "").close()
    assert asked == [("high-performance", 0)] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"adapter": 99}, NoAdapterError, "no adapter 99; available adapters: 0: "),
        ({"adapter": -1}, NoAdapterError, "no adapter -1"),
        ({"adapter": "Voodoo 2"}, NoAdapterError, "no adapter 'Voodoo 2'"),
        ({"adapter": ""}, InvalidArgumentError, "not ''"),
        ({"adapter": True}, InvalidArgumentError, "not True"),
        ({"adapter": 1.0}, InvalidArgumentError, "not 1.0"),
        ({"power_preference": "fast"}, InvalidArgumentError, "not 'fast'"),
        ({"limits": "all"}, InvalidArgumentError, "not 'all'"),
        ({"limits": {"max-buffer-size": 1 << 60}}, LimitError, "rejects a device with limits"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        gw.Device(**arguments)
    assert "\n" not in str(raised.value)


def test_no_adapter_says_how_to_get_one(monkeypatch):
    def reject(**_):
        raise RuntimeError("Request adapter failed (3): No suitable adapter found.\nmore\nlines")

    monkeypatch.setattr(wgpu.gpu, "request_adapter_async", reject)
    monkeypatch.setattr("gpt2_wgpu.webgpu.adapter.sys", types.SimpleNamespace(platform="linux"))
    with pytest.raises(NoAdapterError, match="mesa-vulkan-drivers") as raised:
        gw.Device()
    assert "\n" not in str(raised.value)


def test_out_of_memory_leaves_earlier_tensors_valid(device, monkeypatch):
    x = gw.tensor([1.0, 2.0])
    before = gw.memory()

    def reject(**_):
        raise wgpu.GPUOutOfMemoryError("Not enough memory left.")

    monkeypatch.setattr(device.gpu, "create_buffer", reject)
    with pytest.raises(OutOfGPUMemoryError, match=r"rejects [\d,]+ bytes .*dispose tensors"):
        gw.tensors.empty(device, (123_457,))
    monkeypatch.undo()
    assert gw.memory().num_bytes == before.num_bytes
    assert x.tolist() == [1.0, 2.0]
    x.dispose()


def test_capabilities_are_assumed_within_a_block(device):
    own = device.capabilities
    with pytest.raises(KeyError), device.with_capabilities(max_iterations=7, prefill_rows=3):
        assert (device.capabilities.max_iterations, device.capabilities.prefill_rows) == (7, 3)
        assert device.capabilities.max_binding == own.max_binding
        raise KeyError
    assert device.capabilities is own
    with (
        pytest.raises(InvalidArgumentError, match="no capability is called 'warp'"),
        device.with_capabilities(warp=32),
    ):
        pass


@pytest.mark.parametrize("wrong", ["cpu", 0, 5], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        gw.set_default_device,
        gw.memory,
        gw.leaks,
        gw.trim,
        lambda device: gw.tensor([1.0], device=device),
        lambda device: gw.profile(lambda: None, device),
        lambda device: gw.set_memory_budget(1 << 20, device),
        lambda device: gw.GPT2CausalLM.from_preset("fairytales", device=device),
    ],
    ids=["default", "memory", "leaks", "trim", "tensor", "profile", "budget", "preset"],
)
def test_what_is_not_a_device_is_named(call, wrong, device):
    with pytest.raises(InvalidArgumentError, match=r"device must be a gpt2_wgpu\.Device, not "):
        call(wrong)
    assert gw.default_device() is device
