"""Fakes of a GPU: buffers, pipelines and a device that compute nothing, for tests without one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


class FakeObject:
    """An object of wgpu's class ``kind`` that records each call; ``failing``: name → its error.

    It takes the calls that wgpu's class takes, and no others.
    """

    def __init__(self, kind, calls=None, failing=None):
        self.kind = kind
        self.calls = [] if calls is None else calls
        self.failing = {} if failing is None else failing

    def __getattr__(self, name):
        signature = inspect.signature(getattr(self.kind, name))

        def call(*arguments, **named):
            signature.bind(self, *arguments, **named)
            self.calls.append((name, named or arguments))
            if name in self.failing:
                raise self.failing[name]
            if name in MADE:
                return FakeObject(MADE[name], self.calls, self.failing)
            return (name, len(self.calls))

        return call


MADE = {
    "begin_compute_pass": wgpu.GPUComputePassEncoder,
    "create_command_encoder": wgpu.GPUCommandEncoder,
}


class FakeGPU(FakeObject):
    """A ``wgpu.GPUDevice`` that computes nothing; its queue and encoders record into its calls."""

    def __init__(self):
        super().__init__(wgpu.GPUDevice)
        self.queue = FakeObject(wgpu.GPUQueue, self.calls, self.failing)

    def _poll_wait(self):
        """It is one of wgpu-native's, whose errors are raised by the call that makes them."""

    def count(self, name):
        """How often ``name`` was called."""
        return sum(called == name for called, _ in self.calls)

    def names(self):
        """The names of all calls since the last time."""
        found = [name for name, _ in self.calls]
        self.calls.clear()
        return found


class FakeDevice:
    """The parts of a device that its pool, pipelines and queue use."""

    def __init__(self, budget=1 << 20, pool_limit=1 << 20):
        self.gpu = FakeGPU()
        self.info = AdapterInfo("a GPU", "", "", "", "DiscreteGPU")
        self.is_open, self.is_closed = True, False
        self.queue: Any = None  # a CommandQueue, where a test needs one
        self.created = []
        self.asked = 0  # how often a buffer was asked for
        self.flushes = 0
        self.free = 1 << 40  # bytes that the driver still gives
        self.out_of_memory: Exception = MemoryError()
        self.memory = BufferPool(budget, self.create_buffer, self.flush, pool_limit)

    def create_buffer(self, nbytes, usage):
        self.asked += 1
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
