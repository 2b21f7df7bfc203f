"""Dispatches: queued and submitted (eager), or recorded once and replayed.

:func:`dispatch` is the only way a kernel is run. Outside a :class:`Recording` the dispatch joins
the device's pending list, which is submitted in one compute pass when somebody reads, uploads, or
the list is full. Inside one it is kept: the list (pipeline, bind group, grid) is what other APIs
call a captured graph, and replaying it creates nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LimitError, ShaderError
from .kernels import Kernel, check_bindings
from .memory import Storage
from .tensor import Tensor
from .waiting import wait

if TYPE_CHECKING:
    from .device import Device

PARAMS_STRIDE = 256  # every device accepts uniform offsets of 256 bytes
PENDING_LIMIT = 128  # dispatches per submit at most: the GPU starts while Python encodes the rest

Grid = tuple[int, int, int]
Command = tuple[Any, Any, Grid]  # pipeline, bind group, workgroups
Range = tuple[Storage, int, int]  # storage, byte offset, byte length


@dataclass(frozen=True)
class Part:
    """A byte range of a tensor, to bind less than the whole (offset: a multiple of 256)."""

    tensor: Tensor
    offset: int
    nbytes: int


Binding = Tensor | Part


def dispatch(
    device: Device,
    name: str,
    grid: Grid,
    bindings: Mapping[str, Binding],
    params: Mapping[str, int | float],
    *,
    variant: Mapping[str, str] | None = None,
    constants: Mapping[str, int | float] | None = None,
) -> None:
    """Run kernel ``name`` over ``grid`` workgroups, now or as part of the open recording.

    Raises ``ShaderError`` for wrong bindings or parameters, ``LimitError`` when a binding or the
    grid is larger than the device allows, ``DisposedTensorError`` for a disposed tensor.
    """
    kernel = device.kernels.get(name, variant, constants)
    check_bindings(kernel, bindings)
    if max(grid) > device.limits["max-compute-workgroups-per-dimension"]:
        raise LimitError(f"kernel {name}: {grid} workgroups exceed the device's limit")
    if min(grid) == 0:
        return  # nothing to compute: an empty tensor
    ranges = {key: _range_of(device, name, key, value) for key, value in bindings.items()}
    recording = _recording.get()
    packed = kernel.pack(params)
    if recording is not None and recording.device is device:
        recording.add(kernel, ranges, packed, grid)
    else:
        device.queue.add(kernel, ranges, packed, grid)


def _range_of(device: Device, kernel: str, name: str, binding: Binding) -> Range:
    tensor = binding if isinstance(binding, Tensor) else binding.tensor
    tensor.check()
    if tensor.device is not device:
        raise ShaderError(f"kernel {kernel}: {name} {tensor!r} lives on another device")
    if isinstance(binding, Part):
        found = (tensor.storage, binding.offset, binding.nbytes)
    else:
        found = (tensor.storage, 0, max(4, -(-tensor.nbytes // 4) * 4))
    if found[2] > device.limits["max-storage-buffer-binding-size"]:
        raise LimitError(
            f"kernel {kernel}: {name} needs {found[2]:,} bytes in one binding; this device allows "
            f"{device.limits['max-storage-buffer-binding-size']:,}"
        )
    return found


def bind(
    device: Device, kernel: Kernel, ranges: Mapping[str, Range], params: Any, slot: int
) -> Any:
    """A bind group of these ranges with ``Params`` in ``slot`` of a uniform buffer."""
    entries = [
        {
            "binding": kernel.signature.bindings[name][0],
            "resource": {"buffer": storage.buffer, "offset": offset, "size": nbytes},
        }
        for name, (storage, offset, nbytes) in ranges.items()
    ]
    uniform = {
        "buffer": params,
        "offset": slot * PARAMS_STRIDE,
        "size": -(-kernel.signature.packing.size // 16) * 16,
    }
    entries.append({"binding": kernel.signature.uniform, "resource": uniform})
    return device.gpu.create_bind_group(layout=kernel.layout, entries=entries)


class CommandQueue:
    """The pending dispatches of one device, and every transfer to and from it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._pending: list[Command] = []
        self._slots = 0
        self._params = bytearray(PENDING_LIMIT * PARAMS_STRIDE)
        self._uniform = device.create_buffer(len(self._params), "uniform")

    def add(
        self, kernel: Kernel, ranges: Mapping[str, Range], packed: bytes, grid: Grid
    ) -> None:
        with self._lock, self._device.translated_errors():
            if self._slots == PENDING_LIMIT:
                self.flush()
            start = self._slots * PARAMS_STRIDE
            self._params[start : start + len(packed)] = packed
            group = bind(self._device, kernel, ranges, self._uniform, self._slots)
            self._slots += 1
            self._pending.append((kernel.pipeline, group, grid))

    def replay(self, commands: Sequence[Command], times: int) -> None:
        """Queue a recorded list ``times`` times; runs with the next flush or read."""
        with self._lock:
            for _ in range(times):
                self._pending.extend(commands)

    def flush(self, copies: Iterable[tuple[Any, int, Any, int, int]] = ()) -> None:
        """Submit what is pending, in one pass, then ``copies`` (buffer, offset → buffer, offset)."""
        copies = list(copies)
        with self._lock, self._device.translated_errors():
            if not self._pending and not copies:
                return
            commands, self._pending = self._pending, []
            used, self._slots = self._slots * PARAMS_STRIDE, 0
            if used:
                self._device.gpu.queue.write_buffer(
                    self._uniform, 0, memoryview(self._params)[:used]
                )
            encoder = self._device.gpu.create_command_encoder()
            if commands:
                compute = encoder.begin_compute_pass()
                encode(compute, commands)
                compute.end()
            for copy in copies:
                encoder.copy_buffer_to_buffer(*copy)
            self._device.gpu.queue.submit([encoder.finish()])

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

    async def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range (offsets and lengths: multiples of 4), after what is pending."""
        readback = Readback(self._device, ranges)
        try:
            return [bytes(part) for part in await readback.read()]
        finally:
            readback.close()


def encode(compute: Any, commands: Sequence[Command]) -> None:
    """Write dispatches into a compute pass; the inner loop of every token."""
    set_pipeline = compute.set_pipeline
    set_bind_group = compute.set_bind_group
    dispatch_workgroups = compute.dispatch_workgroups
    bound = None
    for pipeline, group, (x, y, z) in commands:
        if pipeline is not bound:
            set_pipeline(pipeline)
            bound = pipeline
        set_bind_group(0, group)
        dispatch_workgroups(x, y, z)


class Readback:
    """Reads the same ranges again and again through one persistent staging buffer."""

    def __init__(self, device: Device, ranges: Sequence[Range]) -> None:
        self._device = device
        self._lengths = [nbytes for _, _, nbytes in ranges]
        self._staging = device.memory.allocate(sum(self._lengths), "staging")
        starts = [sum(self._lengths[:i]) for i in range(len(ranges))]
        self._copies = [
            (storage.buffer, offset, self._staging.buffer, start, nbytes)
            for (storage, offset, nbytes), start in zip(ranges, starts, strict=True)
        ]

    async def read(self) -> list[memoryview]:
        """Submit what is pending and the copies; wait; the bytes of each range."""
        buffer = self._staging.buffer
        total = sum(self._lengths)
        with self._device.translated_errors():
            self._device.queue.flush(self._copies)
            await wait(buffer.map_async("READ_NOSYNC", 0, total))
            try:
                data = memoryview(bytes(buffer.read_mapped(0, total, copy=False)))
            finally:
                buffer.unmap()
        parts, start = [], 0
        for length in self._lengths:
            parts.append(data[start : start + length])
            start += length
        return parts

    def close(self) -> None:
        self._staging.release()


class Recording:
    """Dispatches that are kept instead of run; ``with`` records, :meth:`replay` runs them.

    The buffers it names stay allocated until :meth:`close`, whatever happens to their tensors.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._recorded: list[tuple[Kernel, Mapping[str, Range], bytes, Grid]] = []
        self._pinned: dict[int, Storage] = {}
        self._commands: list[Command] = []
        self._uniform: Any = None
        self._token: Token[Recording | None] | None = None

    def __enter__(self) -> Recording:
        self._token = _recording.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._token is not None
        _recording.reset(self._token)
        if kind is None:
            self._finish()
        else:
            self.close()

    def __len__(self) -> int:
        """Number of dispatches of one replay."""
        return len(self._commands)

    def add(
        self, kernel: Kernel, ranges: Mapping[str, Range], packed: bytes, grid: Grid
    ) -> None:
        self._recorded.append((kernel, ranges, packed, grid))
        for storage, _, _ in ranges.values():
            if id(storage) not in self._pinned:
                self._pinned[id(storage)] = storage.retain()

    def replay(self, times: int = 1) -> None:
        """Queue the recorded dispatches ``times`` times."""
        self.device.queue.replay(self._commands, times)

    def close(self) -> None:
        """Let go of every buffer. Idempotent."""
        self._commands = []
        pinned, self._pinned = self._pinned, {}
        for storage in pinned.values():
            storage.release()
        if self._uniform is not None:
            self._uniform.destroy()
            self._uniform = None

    def _finish(self) -> None:
        device = self.device
        params = bytearray(len(self._recorded) * PARAMS_STRIDE)
        with device.translated_errors():
            self._uniform = device.create_buffer(max(256, len(params)), "uniform")
            for slot, (kernel, ranges, packed, grid) in enumerate(self._recorded):
                start = slot * PARAMS_STRIDE
                params[start : start + len(packed)] = packed
                group = bind(device, kernel, ranges, self._uniform, slot)
                self._commands.append((kernel.pipeline, group, grid))
            if params:
                device.gpu.queue.write_buffer(self._uniform, 0, params)
        self._recorded = []


_recording: ContextVar[Recording | None] = ContextVar("gpt2_wgpu_recording", default=None)
