"""The command queue of a device: pending dispatches, submits, uploads, copies and reads.

A dispatch joins the device's pending list, which is submitted in one compute pass by a read, by an
upload, or when the list is full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.backends import Bundle
from gpt2_wgpu.webgpu.pipelines import Kernel
from gpt2_wgpu.webgpu.protocols import Copy, ReadableGPU
from gpt2_wgpu.webgpu.readback import Range, Readback
from gpt2_wgpu.webgpu.storage import Storage

PARAMS_STRIDE = 256  # every device accepts uniform offsets of 256 bytes
PENDING_LIMIT = 128  # dispatches per submit at most: the GPU starts while Python encodes the rest

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class DispatchLabel:
    """Description of a dispatch, shown by ``profile``."""

    kernel: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Dispatch:
    """A checked call of a kernel, not yet bound to a slot of parameters."""

    kernel: Kernel
    ranges: Mapping[str, Range]
    params: bytes
    grid: Grid
    label: DispatchLabel


PARAMS_BYTES = PENDING_LIMIT * PARAMS_STRIDE  # of the buffer that the queue is given
Command = tuple[Any, Any, Grid, DispatchLabel]  # pipeline, bind group, workgroups


@dataclass(frozen=True)
class Batch:
    """Commands that run one after the other, ``times`` over.

    ``bundle``: writes them into a pass so many times, where the backend has a quicker way to.
    """

    commands: list[Command]
    times: int = 1
    bundle: Bundle | None = None


Encode = Callable[[Any, Sequence[Batch]], None]  # writes batches into a command encoder


class Recorder(Protocol):
    """Takes dispatches instead of the queue: a ``Recording`` that is open."""

    @property
    def device(self) -> object:
        """The device whose dispatches it takes."""
        ...

    def add(self, work: Dispatch) -> None: ...


open_recorder: ContextVar[Recorder | None] = ContextVar("gpt2_wgpu_recorder", default=None)


def bind(gpu: Any, work: Dispatch, params: Any, slot: int) -> Any:
    """The bind group of ``work`` with its ``Params`` in ``slot`` of the uniform buffer."""
    signature = work.kernel.signature
    entries = [
        {
            "binding": signature.bindings[name][0],
            "resource": {"buffer": storage.buffer, "offset": offset, "size": nbytes},
        }
        for name, (storage, offset, nbytes) in work.ranges.items()
    ]
    uniform = {
        "buffer": params,
        "offset": slot * PARAMS_STRIDE,
        "size": -(-signature.packing.size // 16) * 16,
    }
    entries.append({"binding": signature.uniform, "resource": uniform})
    return gpu.create_bind_group(layout=work.kernel.layout, entries=entries)


class CommandQueue(NotCopyable):
    """The pending dispatches of one device, and every transfer to and from it."""

    def __init__(self, device: ReadableGPU, params_buffer: Any) -> None:
        self._device = device
        self._lock = device.memory.lock  # one lock for both: each calls the other
        self._pending: list[Batch] = []
        self._eager = Batch([])  # takes what is dispatched now, if it is the last one pending
        self._slots = 0
        self._busy = False
        self.profiler: Encode | None = None  # writes the batches instead, while profiled
        self.submits = self.dispatches = 0  # so far, for benchmarks
        self._params = bytearray(PARAMS_BYTES)
        self._uniform = params_buffer  # of PARAMS_BYTES

    def add(self, work: Dispatch) -> None:
        with self._lock, self._device.translated_errors():
            if self._slots == PENDING_LIMIT:
                self.flush()
            start = self._slots * PARAMS_STRIDE
            self._params[start : start + len(work.params)] = work.params
            self._busy = True  # a flush between here and the last line would lose these params
            try:
                group = bind(self._device.gpu, work, self._uniform, self._slots)
                self._slots += 1
                if not self._pending or self._pending[-1] is not self._eager:
                    self._eager = Batch([])
                    self._pending.append(self._eager)
                command = (work.kernel.pipeline, group, work.grid, work.label)
                self._eager.commands.append(command)
            finally:
                self._busy = False

    def replay(self, batch: Batch) -> None:
        """Queue recorded commands; they run with the next flush or read."""
        with self._lock:
            self._pending.append(batch)

    def forget(self) -> None:
        """The device is gone: what was pending will not run."""
        self._pending = []
        self._slots = 0

    def renew_lock(self, lock: threading.RLock) -> None:
        """See ``BufferPool.renew_lock``."""
        self._lock = lock
        self._busy = False

    def close(self) -> None:
        """Free what the queue itself has, on a device that goes on."""
        self._uniform.destroy()

    def flush(self, copies: Iterable[Copy] = ()) -> None:
        """Submit what is pending, in one pass, then ``copies`` (from, offset, to, offset, size)."""
        copies = list(copies)
        if not self._busy:
            self._device.memory.drain()
        with self._lock, self._device.translated_errors():
            if self._busy:
                return  # a release while encoding: the flush in progress, or the next, destroys it
            self._busy = True
            try:
                if self._pending or copies:
                    self._submit(copies)
            finally:
                self._busy = False
            self._device.memory.destroy_pending()

    def _submit(self, copies: Sequence[Copy]) -> None:
        pending, slots = self._pending, self._slots
        self._pending, self._slots = [], 0
        try:
            self._encode_and_submit(pending, slots, copies)
        except BaseException:
            # Keep the pending work; the caller of flush() gets the error.
            self._pending, self._slots = pending, slots
            raise

    def _encode_and_submit(
        self, batches: Sequence[Batch], slots: int, copies: Sequence[Copy]
    ) -> None:
        if slots:
            used = memoryview(self._params)[: slots * PARAMS_STRIDE]
            self._device.gpu.queue.write_buffer(self._uniform, 0, used)
        encoder = self._device.gpu.create_command_encoder()
        if batches and self.profiler is not None:
            self.profiler(encoder, batches)
        elif batches:
            compute = encoder.begin_compute_pass()
            for batch in batches:
                encode(compute, batch)
            compute.end()
        for copy in copies:
            encoder.copy_buffer_to_buffer(*copy)
        # Finishing an encoder of a lost device fails and leaks the device with all its buffers
        # (wgpu-native 29); an encoder that is not finished is freed.
        backends.check_alive(self._device.gpu)
        self._device.gpu.queue.submit([encoder.finish()])
        self.submits += 1
        self.dispatches += sum(len(batch.commands) * batch.times for batch in batches)

    def upload(self, storage: Storage, offset: int, data: Any) -> None:
        """Write bytes into a buffer at ``offset`` (a multiple of 4), after what is pending."""
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
        """As :meth:`upload`, of JavaScript's ``Blob``: in browsers, past Python's memory.

        Raises ``OSError`` when it cannot be read (any more).
        """
        with self._device.translated_errors("uploading"):
            self.flush()
            await backends.write_blob(self._device.gpu, storage.buffer, blob)

    def copy(self, source: Storage, destination: Storage, nbytes: int) -> None:
        """Copy the first ``nbytes`` (a multiple of 4), after what is pending.

        Raises ``DeviceError`` while a recording is open: what it records has not run.
        """
        self._check_not_recording("copy")
        self.flush([(source.buffer, 0, destination.buffer, 0, nbytes)])

    def _check_not_recording(self, verb: str) -> None:
        recorder = open_recorder.get()
        if recorder is not None and recorder.device is self._device:
            raise DeviceError(f"cannot {verb} while recording: what is recorded has not run yet")

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        """The bytes of each range (offsets and lengths: multiples of 4), after what is pending.

        Raises ``DeviceError`` while a recording is open: what it records has not run.
        """
        self._check_not_recording("read")
        readback = Readback(self._device, ranges)
        try:
            return await readback.read()
        finally:
            readback.close()


def encode(compute: Any, batch: Batch) -> None:
    """Write dispatches into a compute pass; the inner loop of every token."""
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
