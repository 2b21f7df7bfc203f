"""The command queue of a device: pending dispatches, submits, uploads, copies and reads.

A dispatch joins the device's pending list, which is submitted in one compute pass by a read, by an
upload, or when the list is full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import NotRecordableError
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.backends import Bundle, GroupEntries
from gpt2_wgpu.webgpu.pipelines import Kernel
from gpt2_wgpu.webgpu.protocols import Copy, ReadableGPU
from gpt2_wgpu.webgpu.readback import Range, Readback
from gpt2_wgpu.webgpu.storage import Storage

PARAMS_STRIDE = 256  # every device accepts uniform offsets of 256 bytes
PENDING_LIMIT = 128  # max dispatches per submit, so that the GPU starts while Python encodes

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class DispatchLabel:
    """Description of a dispatch, shown by ``profile``; ``nbytes``: the size of each binding."""

    kernel: str
    shapes: dict[str, tuple[int, ...]]
    nbytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Dispatch:
    """Validated call of a kernel, not yet bound to a parameter slot."""

    kernel: Kernel
    ranges: Mapping[str, Range]
    params: bytes
    grid: Grid
    label: DispatchLabel


PARAMS_BYTES = PENDING_LIMIT * PARAMS_STRIDE  # of the buffer that the queue is given
Command = tuple[Any, Any, Grid, DispatchLabel]  # pipeline, bind group, workgroups


@dataclass(frozen=True)
class Batch:
    """Sequence of commands, run ``times`` times.

    ``bundle``: fast encoder of the commands, if the backend has one.
    """

    commands: list[Command]
    times: int = 1
    bundle: Bundle | None = None


Encode = Callable[[Any, Sequence[Batch]], None]  # writes batches into a command encoder


class Recorder(Protocol):
    """Receiver of dispatches instead of the queue: an open ``Recording``."""

    was_read: bool  # whether a read was rejected meanwhile

    @property
    def device(self) -> object:
        """The device whose dispatches it takes."""
        ...

    def add(self, work: Dispatch) -> None:
        """Record a dispatch."""


open_recorder: ContextVar[Recorder | None] = ContextVar("gpt2_wgpu_recorder", default=None)


def wanted_group(work: Dispatch, params: Any, slot: int) -> GroupEntries:
    """Return layout and entries of the bind group of ``work``, see :func:`backends.bind_groups`.

    Its ``Params`` are in ``slot`` of the uniform buffer ``params``.
    """
    signature = work.kernel.signature
    entries = [
        (signature.bindings[name][0], storage.buffer, offset, nbytes)
        for name, (storage, offset, nbytes) in work.ranges.items()
    ]
    nbytes = -(-signature.packing.size // 16) * 16
    entries.append((signature.uniform, params, slot * PARAMS_STRIDE, nbytes))
    return work.kernel.layout, entries


class CommandQueue(NotCopyable):
    """Pending dispatches of one device, and all transfers to and from it."""

    def __init__(self, device: ReadableGPU, params_buffer: Any) -> None:
        self._device = device
        self._lock = device.memory.lock  # one lock for both: each calls the other
        self._pending: list[Batch] = []
        self._eager = Batch([])  # receives new dispatches while it is the last pending batch
        self._slots = 0
        self._encoder: Any = None  # holds the batches of _encoded, which come before the pending
        self._encoded: list[Batch] = []
        self._busy = False
        self.profiler: Encode | None = None  # writes the batches instead, while profiled
        self.submits = self.dispatches = 0  # counters for benchmarks
        self._params = bytearray(PARAMS_BYTES)
        self._uniform = params_buffer  # of PARAMS_BYTES

    def add(self, work: Dispatch) -> None:
        """Queue a dispatch."""
        with self._lock, self._device.translated_errors():
            if self._slots == PENDING_LIMIT:
                self.flush()
            start = self._slots * PARAMS_STRIDE
            self._params[start : start + len(work.params)] = work.params
            self._busy = True  # a flush before the last line would lose these params
            try:
                wanted = wanted_group(work, self._uniform, self._slots)
                (group,) = backends.bind_groups(self._device.gpu, [wanted])
                self._slots += 1
                if not self._pending or self._pending[-1] is not self._eager:
                    self._eager = Batch([])
                    self._pending.append(self._eager)
                command = (work.kernel.pipeline, group, work.grid, work.label)
                self._eager.commands.append(command)
            finally:
                self._busy = False

    def replay(self, batch: Batch) -> None:
        """Queue recorded commands for the next flush or read."""
        with self._lock:
            self._pending.append(batch)

    def forget(self) -> None:
        """Discard pending work of a lost or closed device."""
        self._pending, self._encoded = [], []
        self._encoder = None
        self._slots = 0

    def renew_lock(self, lock: threading.RLock) -> None:
        """See ``BufferPool.renew_lock``."""
        self._lock = lock
        self._busy = False

    def close(self) -> None:
        """Free the queue's own buffers, on a device that stays open."""
        self._uniform.destroy()

    def flush(self, copies: Iterable[Copy] = ()) -> None:
        """Submit pending work in one pass, then ``copies`` (from, offset, to, offset, size)."""
        copies = list(copies)
        if not self._busy:
            self._device.memory.drain()
        with self._lock, self._device.translated_errors():
            if self._busy:
                return  # a release while encoding: the flush in progress, or the next, destroys it
            self._busy = True
            try:
                if self._pending or self._encoded or copies:
                    self._submit(copies)
            finally:
                self._busy = False
            self._device.memory.destroy_pending()

    def encode_pending(self) -> None:
        """Encode pending work now; the next flush submits it.

        Unlike a submit, natively this does not block while other work is running. The encoder is
        not finished: wgpu-native 29 leaks a command buffer that is never submitted, and with it the
        device, which a loss would cause.
        """
        with self._lock, self._device.translated_errors():
            if self._busy or self.profiler is not None or not self._pending:
                return
            self._busy = True
            try:
                encoder = self._encoder or self._device.gpu.create_command_encoder()
                encode_pass(encoder, self._pending)
                self._encoder = encoder
                self._encoded += self._pending
                self._pending = []
            finally:
                self._busy = False

    def _submit(self, copies: Sequence[Copy]) -> None:
        encoder, encoded = self._encoder, self._encoded
        pending, slots = self._pending, self._slots
        self._encoder, self._encoded = None, []
        self._pending, self._slots = [], 0
        try:
            self._encode_and_submit(pending, slots, copies, encoder)
            self.dispatches += count_dispatches(encoded)
        except BaseException:
            # Keep the pending work; the caller of flush() gets the error.
            self._pending, self._slots = [*encoded, *pending], slots
            raise

    def _encode_and_submit(
        self, batches: Sequence[Batch], slots: int, copies: Sequence[Copy], encoder: Any = None
    ) -> None:
        if slots:
            used = memoryview(self._params)[: slots * PARAMS_STRIDE]
            self._device.gpu.queue.write_buffer(self._uniform, 0, used)
        encoder = encoder or self._device.gpu.create_command_encoder()
        if batches and self.profiler is not None:
            self.profiler(encoder, batches)
        elif batches:
            encode_pass(encoder, batches)
        for copy in copies:
            encoder.copy_buffer_to_buffer(*copy)
        # Finishing an encoder of a lost device fails and leaks the device with all its buffers
        # (wgpu-native 29); an unfinished encoder is freed.
        backends.check_alive(self._device.gpu)
        self._device.gpu.queue.submit([encoder.finish()])
        self.submits += 1
        self.dispatches += count_dispatches(batches)

    def upload(self, storage: Storage, offset: int, data: Any) -> None:
        """Write bytes to a buffer at ``offset`` (a multiple of 4), after pending work."""
        view = memoryview(data).cast("B")
        tail = view.nbytes % 4
        with self._lock, self._device.translated_errors():
            self.flush()
            whole = view.nbytes - tail
            write = self._device.gpu.queue.write_buffer
            if whole:
                write(storage.buffer, offset, view[:whole])
            if tail:
                write(storage.buffer, offset + whole, bytes(view[whole:]).ljust(4, b"\0"))

    async def upload_blob(self, storage: Storage, blob: Any) -> None:
        """Upload JavaScript's ``Blob``, in browsers without a copy in Python's memory.

        Raises:
            OSError: the blob cannot be read (e.g. its file has changed).
        """
        with self._device.translated_errors("uploading"):
            self.flush()
            await backends.write_blob(self._device.gpu, storage.buffer, blob)

    def copy(self, source: Storage, destination: Storage, nbytes: int) -> None:
        """Copy the first ``nbytes`` (a multiple of 4), after pending work.

        Raises:
            NotRecordableError: a recording is open; its dispatches have not run.
        """
        self._check_not_recording("copy")
        self.flush([(source.buffer, 0, destination.buffer, 0, nbytes)])

    def _check_not_recording(self, verb: str) -> None:
        recorder = open_recorder.get()
        if recorder is not None and recorder.device is self._device:
            recorder.was_read = True
            raise NotRecordableError(
                f"cannot {verb} while recording: what is recorded has not run yet"
            )

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Read the bytes of each range (offsets and lengths: multiples of 4), after pending work.

        Raises:
            NotRecordableError: a recording is open; its dispatches have not run.
        """
        self._check_not_recording("read")
        readback = Readback(self._device, ranges)
        try:
            return await readback.read()
        finally:
            readback.close()


def count_dispatches(batches: Sequence[Batch]) -> int:
    """Return the number of dispatches of ``batches``."""
    return sum(len(batch.commands) * batch.times for batch in batches)


def encode_pass(encoder: Any, batches: Sequence[Batch]) -> None:
    """Encode ``batches`` as one compute pass."""
    compute = encoder.begin_compute_pass()
    for batch in batches:
        encode(compute, batch)
    compute.end()


def encode(compute: Any, batch: Batch) -> None:
    """Encode dispatches into a compute pass; the inner loop of every token."""
    if batch.bundle is not None:
        batch.bundle(compute, batch.times)
        return
    set_pipeline = compute.set_pipeline
    set_bind_group = compute.set_bind_group
    dispatch_workgroups = compute.dispatch_workgroups
    bound = None
    for _ in range(batch.times):
        for pipeline, group, (x, y, z), _ in batch.commands:
            if pipeline is not bound:
                set_pipeline(pipeline)
                bound = pipeline
            set_bind_group(0, group)
            dispatch_workgroups(x, y, z)
