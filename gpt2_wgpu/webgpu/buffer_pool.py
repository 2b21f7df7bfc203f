"""GPU buffers: who holds how many bytes, and the pool that lends freed ones again.

A :class:`Storage` is one reference-counted buffer; tensors that are views share it. A freed
buffer goes to a bounded pool of size classes. Lending it again at once is safe because one queue
runs everything in the order it was encoded; only an upload (``write_buffer``) overtakes commands
that are not yet submitted, which is why uploads flush first (``CommandQueue.upload``).
Contents of a lent buffer are arbitrary: every kernel writes what it is read for.
"""

from __future__ import annotations

import os
import threading
import traceback
import warnings
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceError, InvalidArgumentError, OutOfGPUMemoryError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.budget import default_budget
from gpt2_wgpu.webgpu.storage import KINDS, POOLED, MemoryInfo, Storage, size_class, usage_of

if TYPE_CHECKING:
    from gpt2_wgpu.tensors.tensor import Tensor
    from gpt2_wgpu.webgpu.device import Device


class MemoryManager(NotCopyable):
    """Allocates, counts and recycles the buffers of one device."""

    def __init__(self, device: Device, pool_bytes: int = 256 << 20) -> None:
        self.device = device
        self.lock = threading.RLock()  # re-entrant: garbage collection may release a tensor
        self.pool_limit = pool_bytes
        self.tensors: dict[int, weakref.ref[Tensor]] = {}  # live ones, by serial number
        self._serials = count()
        self._deferred: deque[Callable[[], object]] = deque()
        self._draining = False
        self.debug = False
        self.observer: Callable[[dict[str, int]], None] | None = None  # told live bytes by kind
        self.budget = default_budget(device.info)
        self._pool: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()  # oldest use first
        self._pooled_bytes = 0
        self._doomed: list[Any] = []
        self._live: Counter[str] = Counter()  # kind -> allocated bytes
        # Lent buffers by id. Were they only held by their tensors, the garbage collector could
        # finalise a buffer before the tensor (in a cycle, say a traceback) that then returns it.
        self._lent: dict[int, Any] = {}
        self._suspects: set[int] = set()  # lent ones, by id, that may be invalid: see distrust
        self._num_buffers = 0
        self._num_bytes = 0
        self._peak = self._peak_in_gpu = 0

    def allocate(self, nbytes: int, kind: str = "workspace") -> Storage:
        """A buffer of at least ``nbytes`` with arbitrary contents.

        Raises ``OutOfGPUMemoryError`` when the budget or the driver refuses; earlier tensors stay
        valid and a smaller request succeeds.
        """
        if kind not in KINDS:
            raise InvalidArgumentError(f"kind must be one of {KINDS}, not {shown(kind)}")
        size = size_class(nbytes)
        self.drain()
        with self.lock:
            self.check_fits(size, f"a {kind} buffer")
            self.trim(self.budget - self._live.total() - size)
            buffer = self._take(kind, size) or self._create(kind, size)
            self._lent[id(buffer)] = buffer
            self._num_buffers += 1
            self._num_bytes += nbytes
            self._live[kind] += size
            self._peak = max(self._peak, self._num_bytes)
            self._peak_in_gpu = max(self._peak_in_gpu, self._live.total())
            self._changed()
            return Storage(buffer, nbytes, size, kind, self)

    def adopt(self, buffer: Any, nbytes: int) -> Storage:
        """A storage over a caller's buffer: counted as a buffer, but not as memory of ours."""
        storage = Storage(buffer, nbytes, 0, "workspace", self)
        storage.is_foreign = True
        with self.lock:
            self._num_buffers += 1
            self._num_bytes += nbytes
            self._peak = max(self._peak, self._num_bytes)
        return storage

    def reclaim(self, storage: Storage) -> None:
        """Take back a storage nobody refers to any more (called by ``Storage.release``)."""
        self._num_buffers -= 1
        self._num_bytes -= storage.nbytes
        if storage.is_foreign:
            return
        del self._lent[id(storage.buffer)]
        self._live[storage.kind] -= storage.size
        self._changed()
        suspect = id(storage.buffer) in self._suspects
        self._suspects.discard(id(storage.buffer))
        if storage.pooled and not suspect and self.device.is_open:
            usage = usage_of(storage.kind)
            self._pool.setdefault((usage, storage.size), []).append(storage.buffer)
            self._pool.move_to_end((usage, storage.size))
            self._pooled_bytes += storage.size
            if self._pooled_bytes > self.pool_limit:
                self.trim(self.pool_limit // 2)
        else:
            self.discard([storage.buffer])

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
        self.discard(doomed)

    def distrust(self) -> None:
        """A buffer made earlier turns out to be invalid, and nobody knows which: lend none again.

        Browsers tell of lack of memory after they have made a buffer that cannot be used. The pool
        is emptied, which may make room.
        """
        with self.lock:
            self._suspects = set(self._lent)
        self.trim()

    def _changed(self) -> None:
        if self.observer is not None:
            self.observer({kind: self._live[kind] for kind in KINDS})

    def check_fits(self, nbytes: int, what: str) -> None:
        """Raises ``OutOfGPUMemoryError`` if ``nbytes`` more would exceed the budget."""
        if self._live.total() + nbytes > self.budget:
            raise OutOfGPUMemoryError(self.refusal(nbytes, what, "the memory budget"))

    def refusal(self, nbytes: int, what: str, who: str) -> str:
        """What to say when ``who`` refuses ``nbytes`` for ``what``."""
        held = ", ".join(f"{kind} {size:,}" for kind, size in self._live.items() if size)
        wanted = f"{nbytes:,} bytes" if nbytes else "more memory"  # told late: nobody knows what
        return (
            f"{who} refuses {wanted} for {what}: {self._live.total():,} bytes are held "
            f"({held or 'none'}) of a budget of {self.budget:,}; dispose tensors, use a smaller "
            "batch, length or dtype, or raise the budget (set_memory_budget)"
        )

    @contextmanager
    def measured_peak(self) -> Iterator[Callable[[], tuple[int, int]]]:
        """Yields a function that returns the highest live bytes, logical and in GPU, since the
        block began."""
        with self.lock:
            before, in_gpu = self._peak, self._peak_in_gpu
            self._peak, self._peak_in_gpu = self._num_bytes, self._live.total()
        try:
            yield lambda: (self._peak, self._peak_in_gpu)
        finally:
            with self.lock:
                self._peak = max(before, self._peak)
                self._peak_in_gpu = max(in_gpu, self._peak_in_gpu)

    def born(self, tensor: Tensor) -> tuple[int, str]:
        """Count a new tensor → its serial number, and in debug mode where it was made."""
        with self.lock:
            serial = next(self._serials)
            self.tensors[serial] = weakref.ref(tensor)
        return serial, _callers() if self.debug else ""

    def died(self, serial: int) -> None:
        with self.lock:
            del self.tensors[serial]

    def defer(self, release: Callable[[], object]) -> None:
        """Call ``release`` at the next safe moment: for finalisers, which may run at any."""
        self._deferred.append(release)

    def drain(self) -> None:
        """Run what finalisers left to do; called where nothing is half done.

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

    def report_lost(self, tensor: Tensor) -> None:
        """A tensor is garbage that nobody disposed: say so in debug mode."""
        if self.debug:
            warnings.warn(
                f"{tensor} was never disposed; it was made at:\n{tensor.created}",
                ResourceWarning,
                stacklevel=3,
            )

    def info(self, num_scopes: int = 0) -> MemoryInfo:
        self.drain()
        with self.lock:
            live = self._live.total()
            return MemoryInfo(
                num_tensors=len(self.tensors),
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
        def create() -> Any:
            return self.device.create_buffer(size, usage_of(kind))

        pooled = self._pooled_bytes
        try:
            return create()
        except OutOfGPUMemoryError:
            if not pooled:
                raise
        self.trim()  # the pool may be what stands in the way
        return create()

    def discard(self, buffers: list[Any]) -> None:
        """Destroy buffers once every command that may name them has been submitted."""
        self._doomed.extend(buffers)
        if self._doomed and self.device.is_open:
            # Freeing never fails: what cannot be submitted now waits, and they with it.
            with suppress(DeviceError):
                self.device.queue.flush()  # which calls destroy_doomed
        if not self.device.is_open:
            self.forget()

    def inherit(self, other: MemoryManager) -> None:
        """Take over the settings of a lost device's manager."""
        self.budget, self.debug = other.budget, other.debug
        self.pool_limit, self.observer = other.pool_limit, other.observer

    def forget(self) -> None:
        """The device is gone, and with it every buffer: keep none, count none as pooled."""
        with self.lock:
            self._pool.clear()
            self._doomed.clear()
            self._pooled_bytes = 0

    def destroy_lent(self) -> None:
        """Destroy every buffer in use: for a device that is closed while its GPU device goes on."""
        for buffer in self._lent.values():
            buffer.destroy()

    def renew_lock(self) -> threading.RLock:
        """A new lock, for a forked child: a thread of the parent may hold the old one."""
        self.lock = threading.RLock()
        self._draining = False
        return self.lock

    def destroy_doomed(self) -> None:
        """Called by the queue right after a submit."""
        doomed, self._doomed = self._doomed, []
        for buffer in doomed:
            buffer.destroy()


def _callers() -> str:
    """The stack of whoever makes a tensor, without this package's own frames at its end."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    stack = traceback.extract_stack()
    while len(stack) > 1 and stack[-1].filename.startswith(package):
        stack.pop()
    return "".join(traceback.format_list(stack[-6:]))
