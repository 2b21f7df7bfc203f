"""Devices and buffers shared with another user of wgpu."""

from __future__ import annotations

import copy
import gc
import re
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceLostError, DisposedTensorError, InvalidArgumentError, ShapeError

pytestmark = pytest.mark.native("blocking calls of wgpu itself")

STORAGE = wgpu.BufferUsage.STORAGE
READABLE = STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
DOCS = Path(__file__).parents[3] / "docs" / "wgpu.md"


@pytest.fixture
def gpu():
    """A device of another program."""
    opened = wgpu.gpu.request_adapter_sync().request_device_sync()
    yield opened
    opened.destroy()


@pytest.fixture
def shared(gpu):
    device = gw.Device.from_wgpu(gpu)
    with device:
        yield device


def buffer_of(gpu, values, usage=READABLE):
    data = array("f", values)
    buffer = gpu.create_buffer(size=data.itemsize * len(data), usage=usage)
    if usage & wgpu.BufferUsage.COPY_DST:
        gpu.queue.write_buffer(buffer, 0, data)
    return buffer


def read(gpu, buffer, size=None):
    return gpu.queue.read_buffer(buffer, size=size).cast("f").tolist()


def copied(gpu, source, destination, nbytes):
    encoder = gpu.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, destination, 0, nbytes)
    gpu.queue.submit([encoder.finish()])


def test_it_computes_on_the_given_device(gpu, shared):
    assert shared.gpu is gpu and shared.is_shared
    assert shared.info.name == gpu.adapter.info["device"]
    assert gw.Device.from_wgpu(gpu) is shared
    x = gw.tensor([[1.0, 2.0]])
    assert x.device is shared
    assert gw.ops.softmax(x @ x.view((2, 1))).tolist() == [[1.0]]


def test_the_device_of_a_device_is_itself(device):
    assert gw.Device.from_wgpu(device.gpu) is device


@pytest.mark.native("threads")
def test_threads_that_ask_at_once_get_the_same_device(gpu, monkeypatch):
    set_up = gw.Device._set_up

    def slow(self):
        time.sleep(0.1)  # the other threads ask meanwhile
        set_up(self)

    monkeypatch.setattr(gw.Device, "_set_up", slow)
    with ThreadPoolExecutor(4) as threads:
        devices = list(threads.map(gw.Device.from_wgpu, [gpu] * 4))
    assert len({id(device) for device in devices}) == 1
    devices[0].close()


def test_a_model_writes_the_same_there(device, shared):
    texts = []
    for where in (device, shared):
        lm = gw.GPT2Backbone(16, 2, 2, 16, 32, max_sequence_length=16, device=where, seed=3)
        with gw.GPT2CausalLM(lm) as model:
            model.compile(sampler="greedy")
            ids = {"token_ids": [[1, 2] + [0] * 10], "padding_mask": [[True] * 2 + [False] * 10]}
            texts.append(list(model.generate(ids, stop_token_ids=None)["token_ids"][0]))
    assert texts[0] == texts[1]


def test_closing_frees_what_is_ours_and_nothing_else(gpu, monkeypatch):
    destroyed = []
    for kind in (type(gpu), type(gpu.create_buffer(size=4, usage=STORAGE))):
        monkeypatch.setattr(kind, "destroy", lambda self: destroyed.append(self))
    theirs = buffer_of(gpu, [1.0, 2.0])
    with gw.Device.from_wgpu(gpu) as shared:
        x, y, borrowed = gw.tensor([5.0]), gw.tensor([6.0]), gw.Tensor.from_wgpu(theirs, (2,))
        ours = [x.buffer, y.buffer, shared.queue._uniform]
        borrowed + borrowed
        y.dispose()  # pooled
    assert not shared.is_open
    assert {id(buffer) for buffer in ours} <= {id(buffer) for buffer in destroyed}
    assert gpu not in destroyed and theirs not in destroyed
    monkeypatch.undo()
    assert read(gpu, theirs) == [1.0, 2.0]
    for use in (x.tolist, lambda: borrowed + borrowed, lambda: gw.tensor([1.0], device=shared)):
        with pytest.raises(DeviceLostError):
            use()
    gw.dispose([x, borrowed])
    again = gw.Device.from_wgpu(gpu)
    assert again is not shared
    assert gw.Tensor.from_wgpu(theirs, 2).tolist() == [1.0, 2.0]
    again.close()


def test_a_dropped_device_leaves_theirs(gpu):
    gw.Device.from_wgpu(gpu)
    gc.collect()
    assert read(gpu, buffer_of(gpu, [1.0])) == [1.0]


def test_a_lost_device_is_not_replaced(gpu):
    with gw.Device.from_wgpu(gpu) as shared:
        lm = gw.GPT2Backbone(16, 1, 1, 8, 8, max_sequence_length=8, device=shared)
        gpu.destroy()
        with pytest.raises(DeviceLostError, match=r"another library opened, is lost: pass its new"):
            lm({"token_ids": [[1, 2]]})


def test_what_is_no_wgpu_device_is_refused(device):
    for other in (None, device, "gpu", wgpu.gpu):
        with pytest.raises(InvalidArgumentError, match=r"takes a wgpu\.GPUDevice, not "):
            gw.Device.from_wgpu(other)


# --- buffers --------------------------------------------------------------------------------------


def test_a_tensor_over_a_buffer_copies_nothing_and_counts_no_memory(gpu, shared):
    buffer = buffer_of(gpu, [1.0, 2.0, 3.0, 4.0])
    before = gw.memory()
    x = gw.Tensor.from_wgpu(buffer, (2, 2), label="theirs")
    during = gw.memory()
    assert x.buffer is buffer and (x.shape, x.dtype, x.label) == ((2, 2), "float32", "theirs")
    assert during.num_tensors == before.num_tensors + 1
    assert during.num_bytes == before.num_bytes + 16
    assert during.num_bytes_in_gpu == before.num_bytes_in_gpu
    assert during.by_kind == before.by_kind
    assert (x @ x).tolist() == [[7.0, 10.0], [15.0, 22.0]]
    view, own = copy.copy(x), copy.deepcopy(x)
    gpu.queue.write_buffer(buffer, 0, array("f", [9.0]))
    assert view.tolist()[0][0] == 9.0
    assert own.tolist()[0][0] == 1.0 and own.buffer is not buffer
    gw.dispose([x, view, own])
    after = gw.memory()
    assert (after.num_tensors, after.num_buffers, after.num_bytes) == (
        before.num_tensors, before.num_buffers, before.num_bytes
    )  # fmt: skip


@pytest.mark.parametrize("freed_by", ["dispose", "garbage", "scope"])
def test_their_buffer_is_neither_destroyed_nor_lent(gpu, shared, freed_by):
    buffer = buffer_of(gpu, [1.0] * 64)
    with gw.tidy():
        x = gw.Tensor.from_wgpu(buffer, (64,))
        if freed_by == "dispose":
            x.dispose()
        elif freed_by == "garbage":
            gw.keep(x)
            del x
            gc.collect()
    others = [gw.tensor([7.0] * 64) for _ in range(4)]
    assert all(other.buffer is not buffer for other in others)
    gw.dispose(others)
    shared.memory.trim()
    assert read(gpu, buffer) == [1.0] * 64


def test_one_buffer_may_have_many_tensors(gpu, shared):
    buffer = buffer_of(gpu, [1.0, 2.0])
    tensors = [gw.Tensor.from_wgpu(buffer, (2,)) for _ in range(3)]
    for tensor in tensors:
        assert tensor.tolist() == [1.0, 2.0]
        tensor.dispose()
    assert read(gpu, buffer) == [1.0, 2.0]


def test_taking_the_buffer_submits_what_is_pending(gpu, shared):
    destination = buffer_of(gpu, [0.0, 0.0])
    x = gw.tensor([1.0, 2.0])
    y = x + x
    submits = shared.queue.submits
    copied(gpu, y.buffer, destination, 8)
    assert shared.queue.submits == submits + 1
    assert read(gpu, destination) == [2.0, 4.0]


def test_flush_submits_what_came_after(gpu, shared):
    source = buffer_of(gpu, [1.0, 2.0])
    x = gw.Tensor.from_wgpu(source, (2,))
    y = x + x
    shared.flush()  # or the write below would come first
    gpu.queue.write_buffer(source, 0, array("f", [100.0, 100.0]))
    z = x + x
    assert (y.tolist(), z.tolist()) == ([2.0, 4.0], [200.0, 200.0])


def test_a_recording_keeps_their_buffer(gpu, shared):
    buffer = buffer_of(gpu, [1.0])
    x = gw.Tensor.from_wgpu(buffer, (1,))
    with gw.webgpu.Recording(shared) as recording, gw.tidy() as scope:
        y = scope.escape(x + x)
    x.dispose()
    del x, buffer
    gc.collect()
    recording.replay()
    assert y.tolist() == [2.0]
    recording.close()


@pytest.mark.parametrize(
    ("usage", "arguments", "error", "message"),
    [
        (READABLE, ((5,),), ShapeError, r"\(5,\) in float32 needs 20 bytes, and the buffer has 16"),
        (READABLE, ((-1,),), InvalidArgumentError, "shape must be integers of at least 0"),
        (READABLE, ((1.5,),), InvalidArgumentError, "shape must be integers"),
        (READABLE, ("ab",), InvalidArgumentError, "shape must be integers"),
        (READABLE, ((4,), "float16"), InvalidArgumentError, "dtype must be one of"),
        (wgpu.BufferUsage.COPY_SRC, ((4,),), InvalidArgumentError, r"without the usage .*STORAGE"),
    ],
)
def test_a_buffer_that_cannot_serve(gpu, shared, usage, arguments, error, message):
    buffer = gpu.create_buffer(size=16, usage=usage)
    before = gw.memory().num_tensors
    with pytest.raises(error, match=message):
        gw.Tensor.from_wgpu(buffer, *arguments)
    assert gw.memory().num_tensors == before


def test_a_buffer_that_cannot_be_read_says_so(gpu, shared):
    x = gw.Tensor.from_wgpu(buffer_of(gpu, [1.0], STORAGE | wgpu.BufferUsage.COPY_DST), (1,))
    for use in (x.tolist, lambda: copy.deepcopy(x)):
        with pytest.raises(InvalidArgumentError, match="COPY_SRC"):
            use()
    assert (x + x).tolist() == [2.0]


def test_a_buffer_of_no_device_of_ours(gpu):
    buffer = buffer_of(gpu, [1.0])
    with pytest.raises(InvalidArgumentError, match=r"call Device\.from_wgpu"):
        gw.Tensor.from_wgpu(buffer, (1,))
    with pytest.raises(InvalidArgumentError, match=r"takes a wgpu\.GPUBuffer, not \[1\.0\]"):
        gw.Tensor.from_wgpu([1.0], (1,))


def test_no_buffer_of_what_has_none(shared):
    x = gw.tensor([1.0])
    x.dispose()
    with pytest.raises(DisposedTensorError):
        _ = x.buffer
    cache = gw.GPT2Backbone(8, 1, 1, 8, 8, max_sequence_length=8).new_cache(1, 4)
    with pytest.raises(InvalidArgumentError, match="a buffer per layer"):
        _ = cache.buffer
    assert cache.layer(0).buffer.size >= cache.layer(0).nbytes


def test_the_example_of_the_documentation_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(DOCS), "exec"), {})
    assert capsys.readouterr().out == "[3.0, 3.0, 3.0]\n"
