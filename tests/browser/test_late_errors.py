"""Asynchronous errors of a browser: out of memory, and device loss."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chromium import Worker

# Buffers are rejected as in a browser with too little memory: they are invalid, and an error of
# memory is reported asynchronously.
PREPARE = """
import asyncio
import js
import gpt2_wgpu as gw
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.decode_run import DecodeRun
from pyodide.ffi import create_proxy

TOO_LARGE = 1 << 50
refusals = 0
prototype = js.GPUDevice.prototype
create_buffer, pop_error_scope = prototype.createBuffer, prototype.popErrorScope


def create(this, descriptor):
    global refusals
    if refusals:
        refusals -= 1
        descriptor.size = TOO_LARGE
    return create_buffer.call(this, descriptor)


def lacking(error):
    rejected = error is not None and str(TOO_LARGE) in error.message
    return js.GPUOutOfMemoryError.new("said by the test") if rejected else error


checked = create_proxy(lacking)
prototype.createBuffer = create_proxy(create, capture_this=True)
prototype.popErrorScope = create_proxy(
    lambda this: pop_error_scope.call(this).then(checked), capture_this=True
)


def model():
    backbone = gw.GPT2Backbone(257, 2, 2, 16, 32, max_sequence_length=48, device=device, seed=1)
    return gw.GPT2CausalLM(backbone)


async def text():
    inputs = {"token_ids": [[1] * 40], "padding_mask": [[1, 1] + [0] * 38]}
    lm.compile(sampler=gw.samplers.Random(seed=5))
    generated = await lm.generate_async(inputs, stop_token_ids=None)
    return [list(row) for row in generated["token_ids"]]


async def message(work):
    try:
        await work()
    except OutOfGPUMemoryError as error:
        return str(error)


def held():
    info = gw.memory(lm.device)
    return [info.num_tensors, info.num_buffers, info.num_bytes]


def lose():
    lm.device.gpu._internal.device.destroy()


gw.set_default_device(None)
device = await gw.Device.create()
gw.set_default_device(device)
lm = model()
expected = await text()
before = held()
"""
CLEAR_UP = """
prototype.createBuffer, prototype.popErrorScope = create_buffer, pop_error_scope
lm.dispose()
lm.device.close()
gw.set_default_device(None)
"""


@pytest.fixture
def prepared(worker: Worker) -> Any:
    worker.run(PREPARE)
    yield worker
    worker.run(CLEAR_UP)


@pytest.mark.parametrize("skipped", [0, 3, 20])
def test_a_load_that_lacks_memory_raises_itself(prepared: Worker, skipped: int) -> None:
    code = """
async def load():
    global refusals
    made = 0
    honest = type(device.gpu).create_buffer
    def counted(self, **given):
        global refusals
        nonlocal made
        refusals, made = int(made == skipped), made + 1
        return honest(self, **given)
    type(device.gpu).create_buffer = counted
    try:
        model()
    finally:
        type(device.gpu).create_buffer = honest
[await message(load), held() == before, await text() == expected]
"""
    said, freed, same = prepared.run(code, skipped=skipped)
    assert "rejects 0 bytes" not in said
    assert "the weights in float32" in said
    assert freed
    assert same


def test_where_a_cache_lacks_memory_the_pool_makes_room(prepared: Worker) -> None:
    code = """
device.memory.trim()
refusals = 1
[await text() == expected, refusals, held() == before]
"""
    assert prepared.run(code) == [True, 0, True]


def test_a_cache_that_lacks_memory_says_how_much_and_nothing_invalid_is_lent(
    prepared: Worker,
) -> None:
    code = """
device.memory.trim()
refusals = 4
[await message(text), refusals, held() == before, await text() == expected]
"""
    said, *rest = prepared.run(code)
    assert "bytes for the keys and values: " in said
    assert "rejects 0 bytes" not in said
    assert rest == [0, True, True]


def test_a_reload_that_lacks_memory_raises_and_the_next_does_not(prepared: Worker) -> None:
    code = """
lose()
refusals = 3
said = await message(text)
refusals = 0
[said, await text() == expected, lm.device is not device, device.is_open]
"""
    said, *rest = prepared.run(code)
    assert "the weights in float32" in said
    assert rest == [True, True, False]


def test_a_device_lost_while_idle_is_not_the_default_any_more(prepared: Worker) -> None:
    code = """
lose()
assert "destroyed" in (await device.lost()).lower()
await asyncio.sleep(0)
another = await gw.webgpu.default_device_async()
found = [device.is_open, another is not device, await gw.tensor([1.0], device=another).data()]
another.close()
[*found[:2], list(found[2])]
"""
    assert prepared.run(code) == [False, True, [1.0]]


@pytest.mark.parametrize("submit", [1, 2, 3, 5])
def test_a_text_whose_device_is_lost_is_the_same(prepared: Worker, submit: int) -> None:
    code = """
submits, honest = 0, DecodeRun.submit

def losing(self, *args):
    global submits
    submits += 1
    if submits == submit:
        lose()
    return honest(self, *args)

DecodeRun.submit = losing
try:
    found = await text()
finally:
    DecodeRun.submit = honest
[found == expected, submits > submit, lm.device is not device, held() == before]
"""
    assert prepared.run(code, submit=submit) == [True] * 4


def test_reading_asks_nothing_of_a_browser_to_know_the_device_is_there(prepared: Worker) -> None:
    code = """
asked, honest = 0, type(device.gpu).create_bind_group_layout

def counted(self, **given):
    global asked
    asked += 1
    return honest(self, **given)

type(device.gpu).create_bind_group_layout = counted
try:
    found = await text()
finally:
    type(device.gpu).create_bind_group_layout = honest
[found == expected, asked]
"""
    assert prepared.run(code) == [True, 0]


def test_clearing_nothing_clears_nothing(prepared: Worker) -> None:
    code = """
x = gw.tensor([1.0, 2.0], device=device)
encoder = device.gpu.create_command_encoder()
encoder.clear_buffer(x.storage.buffer, 0, 0)
device.gpu.queue.submit([encoder.finish()])
kept = list(await x.data())
encoder = device.gpu.create_command_encoder()
encoder.clear_buffer(x.storage.buffer, 4)
device.gpu.queue.submit([encoder.finish()])
found = [kept, list(await x.data())]
x.dispose()
found
"""
    assert prepared.run(code) == [[1.0, 2.0], [1.0, 0.0]]


PIPELINES = """
gpu = device.gpu
SHADER = '''
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(1) fn main() { x[0] = 7u; }
'''
layout = gpu.create_bind_group_layout(
    entries=[{"binding": 0, "visibility": 4, "buffer": {"type": "storage"}}]
)
described = {
    "layout": gpu.create_pipeline_layout(bind_group_layouts=[layout]),
    "compute": {"module": gpu.create_shader_module(code=SHADER), "entry_point": "main"},
}
made = await gpu.create_compute_pipeline_async(**described)
x = gw.tensor([0], "uint32", device=device)
group = gpu.create_bind_group(
    layout=layout,
    entries=[{"binding": 0, "resource": {"buffer": x.storage.buffer, "offset": 0, "size": 4}}],
)
encoder = gpu.create_command_encoder()
run = encoder.begin_compute_pass()
run.set_pipeline(made)
run.set_bind_group(0, group)
run.dispatch_workgroups(1, 1, 1)
run.end()
gpu.queue.submit([encoder.finish()])
computed = (await x.data()).tolist()
x.dispose()
described["compute"]["entry_point"] = "absent"
rejected = None
try:
    await gpu.create_compute_pipeline_async(**described)
except Exception as error:
    rejected = type(error).__name__
{"computed": computed, "rejected": rejected}
"""


def test_a_pipeline_can_be_awaited(prepared: Worker) -> None:
    found = prepared.run(PIPELINES)
    assert found["computed"] == [7]
    assert found["rejected"] in ("GPUPipelineError", "GPUValidationError")
