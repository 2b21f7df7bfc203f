"""Fakes of a GPU: buffers, pipelines and a device that compute nothing, for tests without one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import wgpu

from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.capabilities import AdapterInfo


class FakeBuffer:
    """A buffer: its size, its usage, and whether it was destroyed."""

    def __init__(self, size, usage):
        self.size, self.usage = size, usage
        self.destroyed = False

    def destroy(self):
        assert not self.destroyed, "destroyed twice"
        self.destroyed = True


class FakeGPU:
    """A ``wgpu.GPUDevice`` that records each call; ``failing``: name of a call → its error.

    It takes the calls that wgpu's class takes, and no others.
    """

    def __init__(self):
        self.calls = []
        self.failing = {}

    def __getattr__(self, name):
        signature = inspect.signature(getattr(wgpu.GPUDevice, name))

        def call(**arguments):
            signature.bind(self, **arguments)
            self.calls.append((name, arguments))
            if name in self.failing:
                raise self.failing[name]
            return (name, len(self.calls))

        return call

    def count(self, name):
        """How often ``name`` was called."""
        return sum(called == name for called, _ in self.calls)


class FakeDevice:
    """The parts of a device that its pool, pipelines and queue use."""

    def __init__(self, budget=1 << 20, pool_limit=1 << 20):
        self.gpu = FakeGPU()
        self.info = AdapterInfo("a GPU", "", "", "", "DiscreteGPU")
        self.created = []
        self.flushes = 0
        self.free = 1 << 40  # bytes that the driver still gives
        self.out_of_memory: Exception = MemoryError()
        self.memory = BufferPool(budget, self.create_buffer, self.flush, pool_limit)

    def create_buffer(self, nbytes, usage):
        live = sum(buffer.size for buffer in self.created if not buffer.destroyed)
        if live + nbytes > self.free:
            raise self.out_of_memory
        self.created.append(FakeBuffer(nbytes, usage))
        return self.created[-1]

    def flush(self):
        self.flushes += 1
        self.memory.destroy_pending()

    @contextmanager
    def translated_errors(self, doing="", nbytes=0) -> Iterator[None]:
        yield
