"""GPU buffers: who holds how many bytes, and the pool that lends freed ones again.

A :class:`Storage` is one reference-counted buffer; tensors that are views share it. A freed
buffer goes to a bounded pool of size classes. Lending it again at once is safe because one queue
runs everything in the order it was encoded; only an upload (``write_buffer``) overtakes commands
that are not yet submitted, which is why uploads flush first (``CommandQueue.upload``).
Contents of a lent buffer are arbitrary: every kernel writes what it is read for.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.errors import InvalidArgumentError, OutOfGPUMemoryError

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device

KINDS = ("weights", "cache", "workspace", "staging")
_POOLED = ("workspace", "cache", "staging")  # weights come and go as a whole: pooling holds them


@dataclass(frozen=True)
class MemoryInfo:
    """A snapshot of one device's memory; see ``gpt2_wgpu.memory``."""

    num_tensors: int = 0  # live Tensor objects, views included
    num_buffers: int = 0  # live buffers (views share one)
    num_bytes: int = 0  # logical bytes of live buffers, views counted once
    num_bytes_in_gpu: int = 0  # bytes of live buffers as allocated (size classes)
    num_bytes_allocated_in_gpu: int = 0  # live + pooled
    peak_bytes: int = 0  # highest num_bytes_in_gpu so far
    by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


class Storage:
    """One GPU buffer with a reference count; made by :meth:`MemoryManager.allocate`."""

    __slots__ = ("buffer", "kind", "manager", "nbytes", "pooled", "references", "size")

    def __init__(
        self, buffer: Any, nbytes: int, size: int, kind: str, manager: MemoryManager
    ) -> None:
        self.buffer = buffer  # wgpu.GPUBuffer
        self.nbytes = nbytes  # as asked for
        self.size = size  # as allocated
        self.kind = kind
        self.manager = manager
        self.pooled = kind in _POOLED  # goes to the pool when freed, else is destroyed
        self.references = 1

    def retain(self) -> Storage:
        with self.manager.lock:
            self.references += 1
        return self

    def release(self) -> None:
        with self.manager.lock:
            self.references -= 1
            if self.references == 0:
                self.manager.reclaim(self)


def size_class(nbytes: int) -> int:
    """``nbytes`` rounded up so that at most 1/16 is wasted, and at least to 256 bytes."""
    step = max(256, 1 << max(0, nbytes.bit_length() - 5))
    return max(256, -(-nbytes // step) * step)


class MemoryManager:
    """Allocates, counts and recycles the buffers of one device."""

    def __init__(self, device: Device, pool_bytes: int = 256 << 20) -> None:
        self.device = device
        self.lock = threading.RLock()  # re-entrant: garbage collection may release a tensor
        self.pool_limit = pool_bytes
        self.num_tensors = 0
        self._pool: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()  # oldest use first
        self._pooled_bytes = 0
        self._doomed: list[Any] = []
        self._live: Counter[str] = Counter()  # kind -> allocated bytes
        # Lent buffers by id. Were they only held by their tensors, the garbage collector could
        # finalise a buffer before the tensor (in a cycle, say a traceback) that then returns it.
        self._lent: dict[int, Any] = {}
        self._num_buffers = 0
        self._num_bytes = 0
        self._peak = 0

    def allocate(self, nbytes: int, kind: str = "workspace") -> Storage:
        """A buffer of at least ``nbytes`` with arbitrary contents.

        Raises ``OutOfGPUMemoryError`` when the driver refuses; earlier tensors stay valid.
        """
        if kind not in KINDS:
            raise InvalidArgumentError(f"kind must be one of {KINDS}, not {kind!r}")
        size = size_class(nbytes)
        with self.lock:
            buffer = self._take(kind, size) or self._create(kind, size)
            self._lent[id(buffer)] = buffer
            self._num_buffers += 1
            self._num_bytes += nbytes
            self._live[kind] += size
            self._peak = max(self._peak, self._live.total())
            return Storage(buffer, nbytes, size, kind, self)

    def reclaim(self, storage: Storage) -> None:
        """Take back a storage nobody refers to any more (called by ``Storage.release``)."""
        del self._lent[id(storage.buffer)]
        self._num_buffers -= 1
        self._num_bytes -= storage.nbytes
        self._live[storage.kind] -= storage.size
        if storage.pooled and self.device.is_open:
            usage = _usage_of(storage.kind)
            self._pool.setdefault((usage, storage.size), []).append(storage.buffer)
            self._pool.move_to_end((usage, storage.size))
            self._pooled_bytes += storage.size
            if self._pooled_bytes > self.pool_limit:
                self.trim(self.pool_limit // 2)
        else:
            self._destroy([storage.buffer])

    def trim(self, keep_bytes: int = 0) -> None:
        """Destroy pooled buffers, least recently used sizes first, down to ``keep_bytes``."""
        doomed = []
        with self.lock:
            while self._pooled_bytes > keep_bytes and self._pool:
                key, buffers = next(iter(self._pool.items()))
                doomed.append(buffers.pop(0))
                self._pooled_bytes -= key[1]
                if not buffers:
                    del self._pool[key]
        self._destroy(doomed)

    def info(self) -> MemoryInfo:
        with self.lock:
            live = self._live.total()
            return MemoryInfo(
                num_tensors=self.num_tensors,
                num_buffers=self._num_buffers,
                num_bytes=self._num_bytes,
                num_bytes_in_gpu=live,
                num_bytes_allocated_in_gpu=live + self._pooled_bytes,
                peak_bytes=self._peak,
                by_kind={kind: self._live[kind] for kind in KINDS},
            )

    def _take(self, kind: str, size: int) -> Any:
        key = (_usage_of(kind), size)
        buffers = self._pool.get(key) if kind in _POOLED else None
        if not buffers:
            return None
        buffer = buffers.pop()
        if not buffers:
            del self._pool[key]
        self._pooled_bytes -= size
        return buffer

    def _create(self, kind: str, size: int) -> Any:
        def create() -> Any:
            return self.device.create_buffer(size, _usage_of(kind))

        try:
            return create()
        except OutOfGPUMemoryError:
            if not self._pooled_bytes:
                raise
        self.trim()  # the pool may be what stands in the way
        return create()

    def _destroy(self, buffers: list[Any]) -> None:
        """Destroy buffers once every command that may name them has been submitted."""
        self._doomed.extend(buffers)
        if self._doomed and self.device.is_open:
            self.device.queue.flush()  # which calls destroy_doomed
        elif self._doomed:
            self.destroy_doomed()

    def destroy_doomed(self) -> None:
        """Called by the queue right after a submit."""
        doomed, self._doomed = self._doomed, []
        for buffer in doomed:
            buffer.destroy()


def _usage_of(kind: str) -> str:
    return "staging" if kind == "staging" else "storage"
