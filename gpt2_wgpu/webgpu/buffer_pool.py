"""Buffer accounting and a pool of size classes.

A :class:`Storage` is one reference-counted buffer; views share it. A freed buffer goes to a bounded
pool of size classes. Reusing it at once is safe because one queue runs everything in the order it
was encoded; only an upload (``write_buffer``) overtakes commands that are not yet submitted, which
is why uploads flush first (``CommandQueue.upload``). Contents of a reused buffer are arbitrary:
every kernel writes what it is read for.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceError, InvalidArgumentError, OutOfGPUMemoryError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.storage import (
    KINDS,
    POOLED,
    MemoryInfo,
    Reserve,
    Storage,
    reuse_workspace,
    size_class,
    usage_of,
)


class BufferPool(NotCopyable):
    """Allocates, counts and recycles the buffers of one device.

    ``budget``: bytes that may be live at most. ``create_buffer(nbytes, usage)`` makes a buffer;
    ``flush()`` submits what is pending, then calls :meth:`destroy_pending`.
    """

    def __init__(
        self,
        budget: int,
        create_buffer: Callable[[int, str], Any],
        flush: Callable[[], None],
        pool_limit: int = 256 << 20,
    ) -> None:
        self.budget = budget
        self._create_buffer = create_buffer
        self._flush = flush
        self._is_open = True
        self.lock = threading.RLock()  # re-entrant: garbage collection may release a storage
        self.pool_limit = pool_limit
        self.owners: dict[int, weakref.ref[Any]] = {}  # live owners of storages, by serial number
        self._serials = count()
        self._deferred: deque[Callable[[], object]] = deque()
        self._draining = False
        self.debug = False
        self.observer: Callable[[dict[str, int]], None] | None = None  # gets live bytes by kind
        self._pool: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()  # oldest first
        self._reserves: dict[Reserve, None] = {}  # oldest first
        self._pooled_bytes = 0  # of the pool and the reserves
        self._pending_destroy: list[Any] = []
        self._live: Counter[str] = Counter()  # kind -> allocated bytes
        # Buffers in use by id. Were they only held by their owners, the garbage collector could
        # finalise a buffer before the owner (in a cycle, say a traceback) that then returns it.
        self._in_use: dict[int, Any] = {}
        self._quarantined: set[int] = set()  # of those in use, by id: see quarantine
        self._num_buffers = 0
        self._num_bytes = 0
        self._peak = self._peak_in_gpu = 0

    def allocate(self, nbytes: int, kind: str = "workspace") -> Storage:
        """Allocate a buffer of at least ``nbytes`` with arbitrary contents.

        Raises:
            OutOfGPUMemoryError: the budget or the driver rejects it; earlier buffers stay valid
                and a smaller request may succeed.
        """
        if kind not in KINDS:
            raise InvalidArgumentError(f"kind must be one of {KINDS}, not {shown(kind)}")
        size = size_class(nbytes)
        reuse = reuse_workspace.get()
        if reuse is not None and kind == "workspace" and (idle := reuse(self, size)) is not None:
            return idle.retain()
        self.drain()
        with self.lock:
            self.check_fits(size, f"a {kind} buffer")
            self.trim(self.budget - self._live.total() - size)
            buffer = self._take(kind, size) or self._create(kind, size)
            storage = Storage(buffer, nbytes, size, kind, self)
            self._count([storage])
            return storage

    def _count(self, storages: Sequence[Storage]) -> None:
        """Count buffers as live."""
        for storage in storages:
            self._in_use[id(storage.buffer)] = storage.buffer
            self._num_buffers += 1
            self._num_bytes += storage.nbytes
            self._live[storage.kind] += storage.size
        self._peak = max(self._peak, self._num_bytes)
        self._peak_in_gpu = max(self._peak_in_gpu, self._live.total())
        self._changed()

    def _uncount(self, storages: Sequence[Storage]) -> bool:
        """Count buffers as live no more → whether they may be pooled."""
        quarantined = False
        for storage in storages:
            key = id(storage.buffer)
            del self._in_use[key]
            self._num_buffers -= 1
            self._num_bytes -= storage.nbytes
            self._live[storage.kind] -= storage.size
            quarantined |= key in self._quarantined
            self._quarantined.discard(key)
        self._changed()
        return self._is_open and not quarantined

    def adopt(self, buffer: Any, nbytes: int) -> Storage:
        """Wrap a caller's buffer: counted as a buffer, but its bytes are not counted."""
        storage = Storage(buffer, nbytes, 0, "workspace", self)
        storage.is_foreign = True
        with self.lock:
            self._num_buffers += 1
            self._num_bytes += nbytes
            self._peak = max(self._peak, self._num_bytes)
        return storage

    def reclaim(self, storage: Storage) -> None:
        """Take back a storage without references (called by ``Storage.release``)."""
        if storage.is_foreign:
            self._num_buffers -= 1
            self._num_bytes -= storage.nbytes
        elif self._uncount([storage]) and storage.pooled:
            self._put(storage)
        else:
            self.discard([storage.buffer])

    def _put(self, storage: Storage) -> None:
        """Put a buffer that is not counted as live into the pool."""
        usage = usage_of(storage.kind)
        self._pool.setdefault((usage, storage.size), []).append(storage.buffer)
        self._pool.move_to_end((usage, storage.size))
        self._pooled_bytes += storage.size
        if self._pooled_bytes > self.pool_limit:
            self.trim(self.pool_limit // 2)

    def set_aside(self, storages: Sequence[Storage]) -> Reserve:
        """Pool buffers as a group, for :meth:`take_back`; the caller has the only references.

        They count as pooled, and are destroyed as pooled buffers are: by :meth:`trim`, for lack of
        memory, beyond the pool's limit and with the device.
        """
        reserve = Reserve(storages)
        with self.lock:
            may_be_pooled = self._uncount(storages)
            self._reserves[reserve] = None
            self._pooled_bytes += reserve.size
            if not may_be_pooled:
                self.discard(self._abandon(reserve))
            elif self._pooled_bytes > self.pool_limit:
                self.trim(max(self.pool_limit // 2, min(reserve.size, self.pool_limit)))
        return reserve

    def take_back(self, reserve: Reserve) -> bool:
        """Count the buffers of ``reserve`` as live again; False if they are gone.

        Raises:
            OutOfGPUMemoryError: the budget rejects them; they stay pooled.
        """
        self.drain()
        with self.lock:
            if not reserve.is_intact:
                return False
            self.check_fits(reserve.size, "the buffers of a kept step")
            self._abandon(reserve)
            self.trim(self.budget - self._live.total() - reserve.size)
            self._count(reserve.storages)
            return True

    def give_up(self, reserve: Reserve) -> None:
        """Let the buffers of ``reserve`` be lent one by one. Idempotent."""
        with self.lock:
            if reserve.is_intact:
                self._abandon(reserve)
                self.discard([s.buffer for s in reserve.storages if not s.pooled])
                for storage in reserve.storages:
                    if storage.pooled:
                        self._put(storage)

    def _abandon(self, reserve: Reserve) -> list[Any]:
        """Count the buffers of ``reserve`` as pooled no more → the buffers."""
        del self._reserves[reserve]
        reserve.is_intact = False
        self._pooled_bytes -= reserve.size
        return [storage.buffer for storage in reserve.storages]

    def trim(self, keep_bytes: int = 0) -> None:
        """Destroy pooled buffers, least recently used sizes first, down to ``keep_bytes``.

        Then come reserves, the oldest first.
        """
        unwanted = []
        with self.lock:
            while self._pooled_bytes > keep_bytes and self._pool:
                key, buffers = next(iter(self._pool.items()))
                unwanted.append(buffers.pop(0))
                self._pooled_bytes -= key[1]
                if not buffers:
                    del self._pool[key]
            while self._pooled_bytes > keep_bytes and self._reserves:
                unwanted += self._abandon(next(iter(self._reserves)))
        self.discard(unwanted)

    def quarantine(self) -> None:
        """Pool none of the buffers that are in use now; empty the pool, which may make room.

        For an asynchronous out-of-memory error (in browsers): one of these buffers is invalid, and
        WebGPU does not say which.
        """
        with self.lock:
            self._quarantined = set(self._in_use)
        self.trim()

    def _changed(self) -> None:
        if self.observer is not None:
            self.observer({kind: self._live[kind] for kind in KINDS})

    def check_fits(self, nbytes: int, what: str) -> None:
        """Raise OutOfGPUMemoryError if ``nbytes`` more would exceed the budget."""
        if self._live.total() + nbytes > self.budget:
            raise OutOfGPUMemoryError(self.rejection(nbytes, what, "the memory budget"))

    def rejection(self, nbytes: int, what: str, who: str) -> str:
        """Return the message for ``nbytes`` of ``what`` rejected by ``who`` (budget or driver)."""
        held = ", ".join(f"{kind} {size:,}" for kind, size in self._live.items() if size)
        wanted = f"{nbytes:,} bytes" if nbytes else "more memory"  # 0: an asynchronous error
        return (
            f"{who} rejects {wanted} for {what}: {self._live.total():,} bytes are in use "
            f"({held or 'none'}) of a budget of {self.budget:,}; dispose tensors, use a smaller "
            "batch, length or dtype, or raise the budget (set_memory_budget)"
        )

    @contextmanager
    def measured_peak(self) -> Iterator[Callable[[], tuple[int, int]]]:
        """Yield a function that returns the peak live bytes in this block, logical and in GPU."""
        with self.lock:
            before, in_gpu = self._peak, self._peak_in_gpu
            self._peak, self._peak_in_gpu = self._num_bytes, self._live.total()
        try:
            yield lambda: (self._peak, self._peak_in_gpu)
        finally:
            with self.lock:
                self._peak = max(before, self._peak)
                self._peak_in_gpu = max(in_gpu, self._peak_in_gpu)

    def register(self, owner: object) -> int:
        """Count a live owner of a storage (a tensor) → its serial number."""
        with self.lock:
            serial = next(self._serials)
            self.owners[serial] = weakref.ref(owner)
        return serial

    def unregister(self, serial: int) -> None:
        """Count the owner of this number no more."""
        with self.lock:
            del self.owners[serial]

    def defer(self, release: Callable[[], object]) -> None:
        """Call ``release`` in the next :meth:`drain`: for finalisers, which may run anywhere."""
        self._deferred.append(release)

    def drain(self) -> None:
        """Run what finalisers have deferred; called where no other work is half done.

        One after the other, in constant stack depth: to free a buffer may flush the queue, which
        calls this again, and then the outermost call goes on.
        """
        if not self._deferred:
            return
        with self.lock:
            if self._draining:
                return
            self._draining = True
            try:
                while self._deferred:
                    self._deferred.popleft()()
            finally:
                self._draining = False

    def info(self, num_scopes: int = 0) -> MemoryInfo:
        """Return a snapshot of the counters."""
        self.drain()
        with self.lock:
            live = self._live.total()
            return MemoryInfo(
                num_tensors=len(self.owners),
                num_buffers=self._num_buffers,
                num_bytes=self._num_bytes,
                num_bytes_in_gpu=live,
                num_bytes_allocated_in_gpu=live + self._pooled_bytes,
                peak_bytes=self._peak,
                peak_bytes_in_gpu=self._peak_in_gpu,
                num_scopes=num_scopes,
                budget=self.budget,
                by_kind={kind: self._live[kind] for kind in KINDS},
            )

    def _take(self, kind: str, size: int) -> Any:
        key = (usage_of(kind), size)
        buffers = self._pool.get(key) if kind in POOLED else None
        if not buffers:
            return None
        buffer = buffers.pop()
        if not buffers:
            del self._pool[key]
        self._pooled_bytes -= size
        return buffer

    def _create(self, kind: str, size: int) -> Any:
        pooled = self._pooled_bytes
        try:
            return self._create_buffer(size, usage_of(kind))
        except OutOfGPUMemoryError:
            if not pooled:
                raise
        self.trim()  # the pool may take the memory that is missing
        return self._create_buffer(size, usage_of(kind))

    def discard(self, buffers: list[Any]) -> None:
        """Destroy buffers after the submit of all commands that may use them."""
        self._pending_destroy.extend(buffers)
        if self._pending_destroy and self._is_open:
            # Freeing never fails: if the submit fails, work and buffers stay pending.
            with suppress(DeviceError):
                self._flush()  # which calls destroy_pending
        if not self._is_open:
            self.forget()

    def inherit(self, other: BufferPool) -> None:
        """Take over the settings of a lost device's pool."""
        self.budget, self.debug = other.budget, other.debug
        self.pool_limit, self.observer = other.pool_limit, other.observer

    def forget(self) -> None:
        """Drop all buffers after the loss of the device."""
        with self.lock:
            self._is_open = False
            for reserve in list(self._reserves):
                self._abandon(reserve)
            self._pool.clear()
            self._pending_destroy.clear()
            self._pooled_bytes = 0

    def destroy_in_use(self) -> None:
        """Destroy all buffers in use when the device is closed but its GPU device stays open."""
        for buffer in self._in_use.values():
            buffer.destroy()

    def renew_lock(self) -> threading.RLock:
        """Replace the lock in a forked child: a thread of the parent may hold the old one."""
        self.lock = threading.RLock()
        self._draining = False
        return self.lock

    def destroy_pending(self) -> None:
        """Destroy the discarded buffers: called by the queue right after a submit."""
        pending, self._pending_destroy = self._pending_destroy, []
        for buffer in pending:
            buffer.destroy()
