"""Storage: a reference-counted GPU buffer; MemoryInfo: the figures reported of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError

# Usage classes of buffers: what one is for decides its WebGPU usage, and whether it is pooled.
KINDS = ("weights", "cache", "workspace", "staging", "parameters")
POOLED = ("workspace", "cache", "staging")  # pooled weights would outlive their model


@dataclass(frozen=True)
class MemoryInfo:
    """Snapshot of one device's memory; see ``gpt2_wgpu.memory``."""

    num_tensors: int = 0  # live Tensor objects, views included
    num_buffers: int = 0  # live buffers (views share one)
    num_bytes: int = 0  # logical bytes of live buffers, views counted once
    num_bytes_in_gpu: int = 0  # bytes of live buffers as allocated (size classes)
    num_bytes_allocated_in_gpu: int = 0  # live + pooled
    peak_bytes: int = 0  # highest num_bytes so far
    peak_bytes_in_gpu: int = 0  # highest num_bytes_in_gpu so far
    num_scopes: int = 0  # open tidy scopes of this task or thread
    budget: int = 0  # limit of num_bytes_in_gpu
    by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))  # in GPU

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind} {nbytes:,}" for kind, nbytes in self.by_kind.items())
        return (
            f"<memory: {self.num_tensors:,} tensors in {self.num_buffers:,} buffers, "
            f"{self.num_bytes:,} bytes (in GPU {self.num_bytes_in_gpu:,}, with the pool "
            f"{self.num_bytes_allocated_in_gpu:,}), peak {self.peak_bytes:,} (in GPU "
            f"{self.peak_bytes_in_gpu:,}), budget {self.budget:,}; in GPU: {kinds}>"
        )


class Pool(Protocol):
    """The pool that a storage goes back to: ``buffer_pool.BufferPool``."""

    lock: threading.RLock

    def reclaim(self, storage: Storage) -> None:
        """Take back an unreferenced storage."""


class Storage(NotCopyable):
    """One GPU buffer with a reference count; made by ``BufferPool.allocate``."""

    __slots__ = (
        "buffer", "is_foreign", "kind", "nbytes", "pool", "pooled", "references", "size",
    )  # fmt: skip

    def __init__(self, buffer: Any, nbytes: int, size: int, kind: str, pool: Pool) -> None:
        self.buffer = buffer  # wgpu.GPUBuffer
        self.nbytes = nbytes  # requested
        self.size = size  # allocated
        self.kind = kind
        self.pool = pool
        self.pooled = kind in POOLED  # pooled when freed, else destroyed
        self.is_foreign = False  # the caller's buffer: neither destroyed nor pooled
        self.references = 1

    def __str__(self) -> str:
        return f"Storage of {self.nbytes:,} bytes ({self.kind})"

    def retain(self) -> Storage:
        """Add a reference; DisposedTensorError if the last one was dropped."""
        with self.pool.lock:
            if self.references == 0:
                raise DisposedTensorError(f"{self} was freed, so it cannot be used any more")
            self.references += 1
        return self

    def check_readable(self) -> None:
        """Raise InvalidArgumentError for a caller's buffer without COPY_SRC."""
        if self.is_foreign and not self.buffer.usage & 0x04:  # wgpu.BufferUsage.COPY_SRC
            raise InvalidArgumentError(
                "this tensor's buffer was created without the usage wgpu.BufferUsage.COPY_SRC: its "
                "values cannot be read or copied"
            )

    def release(self) -> None:
        """Drop a reference; the last one returns the buffer to the pool."""
        with self.pool.lock:
            self.references -= 1
            if self.references == 0:
                self.pool.reclaim(self)


class Reserve(NotCopyable):
    """Pooled buffers that are lent again only together; see ``BufferPool.set_aside``."""

    def __init__(self, storages: Sequence[Storage]) -> None:
        self.storages = tuple(storages)
        self.size = sum(storage.size for storage in storages)
        self.is_intact = True  # until the pool destroys a buffer of it or lends it to others


# Gives an idle buffer of a size to a recording, for a workspace that it allocates.
reuse_workspace: ContextVar[Callable[[Pool, int], Storage | None] | None] = ContextVar(
    "gpt2_wgpu_reuse_workspace", default=None
)


def size_class(nbytes: int) -> int:
    """Round ``nbytes`` up to a size class: at most 1/16 larger, at least 256 bytes."""
    step = max(256, 1 << max(0, nbytes.bit_length() - 5))
    return max(256, -(-nbytes // step) * step)


def usage_of(kind: str) -> str:
    """Return the usage of buffers of ``kind``, see ``Device.create_buffer``."""
    return {"staging": "staging", "parameters": "uniform"}.get(kind, "storage")
