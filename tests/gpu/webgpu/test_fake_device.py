"""The fake GPU of tests/webgpu and a real one: the buffer pool sees no difference."""

from __future__ import annotations

import gc
from dataclasses import asdict

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import OutOfGPUMemoryError
from tests.webgpu.fakes import FakeDevice, FakeGPU

pytestmark = pytest.mark.native("wgpu's classes")
BUDGET, POOL_LIMIT = 1 << 20, 3 << 16
ALL = 1024 + 5120 + 102_400  # bytes of the size classes of 1000, 5000 and 100,000


@pytest.fixture(params=["fake", "real"])
def opened(request):
    """A device with a budget of 1 MiB and a pool of 192 KiB."""
    if request.param == "fake":
        yield FakeDevice(BUDGET, POOL_LIMIT)
        return
    with gw.Device() as device:
        device.memory.budget, device.memory.pool_limit = BUDGET, POOL_LIMIT
        yield device


def test_the_pool_of_either_counts_the_same(opened):
    """Allocate, reuse, reject, trim: the counters after each are these, with either device."""
    pool, seen = opened.memory, []

    def note():
        gc.collect()
        info = asdict(pool.info())
        names = ("num_buffers", "num_bytes_in_gpu", "num_bytes_allocated_in_gpu")
        seen.append(tuple(info[name] for name in names))

    held = [pool.allocate(size) for size in (1000, 5000, 100_000)]
    note()
    buffer = held[1].buffer
    held.pop(1).release()
    note()
    held.append(pool.allocate(5000))
    assert held[-1].buffer is buffer
    with pytest.raises(OutOfGPUMemoryError, match="budget"):
        pool.allocate(2 << 20)
    note()
    for storage in held:
        storage.release()
    note()
    opened.flush()
    pool.trim()
    opened.flush()
    note()
    assert seen == [(3, ALL, ALL), (2, ALL - 5120, ALL), (3, ALL, ALL), (0, 0, ALL), (0, 0, 0)]


def test_buffers_have_what_the_pool_uses(opened):
    storage = opened.memory.allocate(1000)
    buffer = storage.buffer
    assert (buffer.size, callable(buffer.destroy)) == (1024, True)
    storage.release()


def test_the_fake_takes_the_calls_of_wgpu_and_no_others():
    fake = FakeGPU()
    fake.create_shader_module(label="x", code="")
    assert fake.count("create_shader_module") == 1
    with pytest.raises(AttributeError):
        fake.create_shader()
    with pytest.raises(TypeError, match="unexpected keyword argument 'source'"):
        fake.create_shader_module(code="", source="")
