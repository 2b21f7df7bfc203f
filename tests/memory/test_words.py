"""``repr`` and messages of objects that hold GPU memory."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, GPT2WGPUError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.samplers import GreedySampler
from gpt2_wgpu.webgpu import Readback, Recording

pytestmark = pytest.mark.usefixtures("no_leak")


def test_no_repr_shows_an_address(lm):
    device = lm.device
    with gw.tidy() as scope:
        x = gw.tensor([1.0, 2.0], label="x")
        with Recording(device) as recording:
            x + x
        readback = Readback(device, [(x.storage, 0, 8)])
        generation = Generation(lm, [[1, 2]], [4], GreedySampler().next_options(), [])
        asyncio.run(generation.advance())
        stream = lm.stream("ab", max_new_tokens=4)
        cache = lm.backbone.new_cache(1, 8)
        shown = {
            repr(x): "<Tensor 'x' [2] float32: [1. 2.]>",
            repr(cache): "<KVCache [1, 2, 2, 8, 2, 8] float32>",
            repr(x.storage): "<Storage of 8 bytes (workspace)>",
            repr(device): f"<Device {device.info.name}, {device.info.backend}>",
            repr(recording): f"<Recording of 1 dispatches on {device.info.name}>",
            repr(readback): f"<Readback of 8 bytes from {device.info.name}>",
            repr(generation): "<Generation of 1 rows, 3 tokens so far>",
            repr(stream): "<TextStream, 0 new tokens, running>",
            repr(device.memory): "<BufferPool>",
            repr(device.queue): "<CommandQueue>",
            repr(gw.tidy("a")): "<tidy 'a'>",
        }
        assert list(shown) == list(shown.values())
        others = [
            lm,
            lm.backbone,
            generation._run,
            device.pipelines,
            scope,
            x.check,
            gw.leaks(device),
        ]
        others += list(device.pipelines._kernels.values())[:3]
        for value in others:
            assert " object at 0x" not in repr(value)
        for closing in (recording, readback, generation, stream):
            closing.close()


def test_reports_are_words():
    with gw.tidy():
        gw.tensor([1.0, 2.0])
        info = gw.memory()
        assert f"{info.num_tensors} tensors in {info.num_buffers} buffers" in repr(info)
        assert f"{info.num_bytes:,} bytes (in GPU {info.num_bytes_in_gpu:,}" in repr(info)
        found = gw.profile(lambda: gw.ops.relu(gw.tensor([3.0])))
        assert "1 dispatches, +2 tensors, +8 bytes (in GPU +512)" in repr(found)


MISTAKES = {
    "disposed": lambda x, c: (x.dispose(), x.tolist()),
    "no truth value": lambda x, c: bool(x),
    "a cache as a tensor": lambda x, c: c.view((3,)),
    "a cache in an op": lambda x, c: gw.ops.relu(c),
    "mixed types": lambda x, c: x + gw.tensor([1], "int32"),
    "ragged": lambda x, c: gw.tensor([[1.0], [2.0] * 10_000]),
    "too large": lambda x, c: gw.tensor([10**400]),
    "axes": lambda x, c: gw.ops.transpose(x, "a" * 10_000),
    "indices": lambda x, c: gw.ops.gather(x, ["z" * 10_000]),
    "a list": lambda x, c: gw.ops.concat("q" * 10_000, 0),
    "budget": lambda x, c: gw.set_memory_budget("1" * 10_000),
    "tidy": lambda x, c: gw.tidy(*range(10_000)),
    "dtype": lambda x, c: gw.tensor([1.0], "f" * 10_000),
    "adapter": lambda x, c: gw.Device(adapter=["a" * 10_000]),
    "adapter name": lambda x, c: gw.Device(adapter="a" * 10_000),
    "limits": lambda x, c: gw.Device(limits="a" * 10_000),
    "preference": lambda x, c: gw.Device(power_preference="a" * 10_000),
    "fill": lambda x, c: x + 10**400,
    "weights": lambda x, c: gw.GPT2Backbone(8, 1, 1, 8, 8, dtype="w" * 10_000),
    "cache dtype": lambda x, c: gw.GPT2Backbone(8, 1, 1, 8, 8, cache_dtype="w" * 10_000),
    "device": lambda x, c: gw.GPT2Backbone(8, 1, 1, 8, 8, device="d" * 10_000),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_messages_are_short_and_name_tensors_in_words(lm, mistake):
    with gw.tidy():
        x, cache = gw.tensor([1.0, 2.0], label="x"), lm.backbone.new_cache(1, 8)
        with pytest.raises(GPT2WGPUError) as seen:
            mistake(x, cache)
    message = str(seen.value)
    assert len(message) < 400
    assert "<Tensor" not in message and " object at " not in message and "<Device" not in message


def test_a_disposed_tensor_is_named_in_words():
    x = gw.tensor([1.0], label="x")
    x.dispose()
    with pytest.raises(DisposedTensorError, match=r"^Tensor 'x' \[1\] float32 was freed"):
        x.tolist()
