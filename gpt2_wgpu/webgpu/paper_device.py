"""Device without a GPU: computes nothing, and shows which kernels a model takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.pipelines import (
    Kernel,
    PipelineCache,
    load_source,
    parse_signature,
)
from gpt2_wgpu.webgpu.queue import Dispatch

_BUDGET = 1 << 50  # bytes, of no memory


class PaperDevice(Device):
    """A device on paper; ``queue.works`` are the dispatches so far.

    ``pipelines`` compiles nothing. With those of a real device in its place, the kernels are
    asked for there.

    Args:
        info, limits, features: of the adapter.
    """

    def __init__(
        self, info: AdapterInfo, limits: Mapping[str, int], features: Collection[str] = ()
    ) -> None:
        self.is_open, self.is_closed = True, False
        self.is_shared, self.replacement = True, None
        self.gpu = _GPU()
        self.info, self.limits, self.features = info, limits, frozenset(features)
        self.capabilities = Capabilities.of(info, limits, features)
        self.memory = BufferPool(_BUDGET, self.create_buffer, self.flush)
        self.pipelines = _Signatures(self)
        self.queue = _List()  # type: ignore[assignment]

    @classmethod
    def of(cls, device: Device) -> PaperDevice:
        """Return one that chooses kernels as ``device`` does."""
        self = cls(device.info, device.limits, device.features)
        self.capabilities = device.capabilities
        return self

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


class _GPU:
    """The GPU: makes nothing."""

    def __init__(self) -> None:
        self.queue = self

    def create_bind_group(self, **_: object) -> None:
        """Return None in place of a bind group."""

    def create_compute_bundle(self, commands: Sequence[object]) -> None:
        """Return None in place of a bundle."""

    def write_buffer(self, buffer: object, offset: int, data: object) -> None:
        """Drop the data."""


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

    def replay(self, batch: object) -> None:
        """Run nothing."""

    def upload(self, storage: object, offset: int, data: object) -> None:
        """Drop the data."""

    async def upload_blob(self, storage: object, blob: object) -> None:
        """Read nothing."""

    def flush(self, copies: Sequence[object] = ()) -> None:
        """Submit nothing."""

    def copy(self, source: object, destination: object, nbytes: int) -> None:
        """Copy nothing."""

    async def read(self, ranges: Sequence[tuple[object, int, int]]) -> list[memoryview]:
        return [memoryview(bytes(nbytes)) for _, _, nbytes in ranges]
