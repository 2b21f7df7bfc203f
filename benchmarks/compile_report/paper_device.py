"""Device without a GPU: computes nothing, and lists the dispatches of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.webgpu.pipelines import (
    Kernel,
    PipelineCache,
    load_source,
    parse_signature,
)
from gpt2_wgpu.webgpu.queue import Dispatch

# Limits that most GPUs grant.
LIMITS = {
    "max-buffer-size": 1 << 31,
    "max-storage-buffer-binding-size": (1 << 31) - 4,
    "max-compute-invocations-per-workgroup": 1024,
    "max-compute-workgroup-size-x": 1024,
    "max-compute-workgroup-storage-size": 32 << 10,
    "max-storage-buffers-per-shader-stage": 16,
    "max-compute-workgroups-per-dimension": 65_535,
}


class PaperDevice(Device):
    """A discrete GPU on paper; ``queue.works`` are the dispatches so far."""

    def __init__(self) -> None:
        self.is_open, self.is_closed = True, False
        self.is_shared, self.replacement = True, None
        self.gpu = None
        self.info = AdapterInfo("a GPU on paper", "", "", "", "DiscreteGPU")
        self.limits, self.features = LIMITS, frozenset[str]()
        self.capabilities = Capabilities.of(self.info, LIMITS)
        self.memory = BufferPool(1 << 50, self.create_buffer, self.flush)
        self.pipelines = _Signatures(self)
        self.queue = _List()  # type: ignore[assignment]

    def create_buffer(self, nbytes: int, usage: str) -> Any:
        """Return an object in place of a buffer."""
        return _Buffer(nbytes)

    def flush(self) -> None:
        """Free pending buffers; nothing is submitted."""
        self.memory.destroy_pending()

    async def check_errors(self, doing: str, nbytes: int) -> None:
        """Return: there are none."""

    def close(self) -> None:
        """Mark as closed."""
        self.is_open, self.is_closed = False, True


class _Buffer:
    def __init__(self, size: int) -> None:
        self.size = size

    def destroy(self) -> None:
        """Do nothing: there is no memory."""


class _Signatures(PipelineCache):
    """Kernels whose ``pipeline`` is the key by which they were asked for: nothing is compiled."""

    def _compile(self, name: str, variant: tuple[Any, ...], constants: tuple[Any, ...]) -> Kernel:
        signature = parse_signature(name, load_source(name, variant, self.directory))
        return Kernel(name, signature, (name, variant, constants), None)


class _List:
    """The queue: keeps dispatches, drops uploads, reads zeros."""

    def __init__(self) -> None:
        self.works: list[Dispatch] = []
        self.submits = self.dispatches = 0

    def add(self, work: Dispatch) -> None:
        self.works.append(work)

    def upload(self, storage: object, offset: int, data: object) -> None:
        """Drop the data."""

    def flush(self, copies: Sequence[object] = ()) -> None:
        """Submit nothing."""

    def copy(self, source: object, destination: object, nbytes: int) -> None:
        """Copy nothing."""

    async def read(self, ranges: Sequence[tuple[object, int, int]]) -> list[memoryview]:
        return [memoryview(bytes(nbytes)) for _, _, nbytes in ranges]


Key = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, int | float], ...]]


def key_of(work: Dispatch) -> Key:
    """Return name, variant and constants of the kernel of a dispatch on a `PaperDevice`."""
    key: Key = work.kernel.pipeline
    return key


def as_mapping(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    """Return a part of a key as JSON has it."""
    return dict(pairs)
