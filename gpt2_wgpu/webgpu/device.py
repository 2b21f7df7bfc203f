"""Device: an adapter's queue, limits, memory and pipelines."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.copying import NotPicklable
from gpt2_wgpu.errors import (
    DeviceError,
    DeviceLostError,
    InvalidArgumentError,
    LimitError,
    OutOfGPUMemoryError,
    ShaderError,
)
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.adapter import WANTED_FEATURES, one_line, request_adapter, wanted_limits
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities, default_budget
from gpt2_wgpu.webgpu.fork import after_fork, check_not_forked, inherited
from gpt2_wgpu.webgpu.pipelines import PipelineCache
from gpt2_wgpu.webgpu.queue import PARAMS_BYTES, CommandQueue
from gpt2_wgpu.webgpu.waiting import sync, wait

if TYPE_CHECKING:
    import wgpu

LABEL = "gpt2-wgpu"  # of devices, in the drivers' tools


class Device(NotPicklable):
    """GPU device with its queue, memory and kernels.

    ``with Device():`` makes it the default within the block, for this thread or task and the tasks
    it starts.

    Args:
        power_preference: "high-performance" or "low-power".
        limits: "adapter": the adapter's own limits; "default": WebGPU's guaranteed minimum; or a
            mapping of limits.
        adapter: index in :func:`adapters`, or part of a name (ignoring case; the first match);
            None: wgpu's preferred adapter.

    Raises:
        NoAdapterError: no adapter was found.
        LimitError: the adapter rejects the limits.
    """

    info: AdapterInfo
    limits: Mapping[str, int]
    features: frozenset[str]
    capabilities: Capabilities
    gpu: Any  # wgpu.GPUDevice
    memory: BufferPool
    queue: CommandQueue
    pipelines: PipelineCache

    def __init__(
        self,
        power_preference: str = "high-performance",
        limits: str | Mapping[str, int] = "adapter",
        adapter: int | str | None = None,
    ) -> None:
        self.is_open = self.is_closed = False
        sync(self._open(power_preference, limits, adapter), "Device.create(...)")

    @classmethod
    async def create(
        cls,
        power_preference: str = "high-performance",
        limits: str | Mapping[str, int] = "adapter",
        adapter: int | str | None = None,
    ) -> Device:
        """Open a device asynchronously; arguments and errors as in the class."""
        self = cls.__new__(cls)
        self.is_open = self.is_closed = False
        await self._open(power_preference, limits, adapter)
        return self

    @classmethod
    def from_wgpu(cls, gpu: wgpu.GPUDevice) -> Device:
        """Wrap a ``wgpu.GPUDevice`` opened by the caller or another library.

        Both share its queue and may share buffers (``Tensor.from_wgpu``, ``Tensor.buffer``). A
        second call returns the same ``Device``. ``close`` frees the memory allocated here and
        leaves ``gpu`` open; after a loss of ``gpu`` only its owner can replace it.

        Args:
            gpu: an open ``wgpu.GPUDevice``.

        Raises:
            InvalidArgumentError: ``gpu`` is another object.
            DeviceLostError: ``gpu`` is lost.
        """
        wgpu = load_wgpu()
        check_not_forked()
        if not isinstance(gpu, wgpu.GPUDevice):
            raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUDevice, not {shown(gpu)}")
        with _registering:  # concurrent calls return the same device
            if (known := _device_on(gpu)) is not None:
                return known
            self = cls.__new__(cls)
            self.is_open = self.is_closed = False
            self.is_shared, self.replacement = True, None
            self.gpu, self.info = gpu, AdapterInfo.from_adapter(gpu.adapter.info)
            self._set_up()
            return self

    @classmethod
    def of_buffer(cls, buffer: wgpu.GPUBuffer) -> Device:
        """Return the device of a caller's buffer.

        Raises:
            InvalidArgumentError: the object is not a buffer, has no STORAGE usage, or belongs to
                no open device.
        """
        wgpu = load_wgpu()
        if not isinstance(buffer, wgpu.GPUBuffer):
            raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUBuffer, not {shown(buffer)}")
        if not buffer.usage & wgpu.BufferUsage.STORAGE:
            raise InvalidArgumentError(
                "the buffer was made without the usage wgpu.BufferUsage.STORAGE, which kernels need"
            )
        device = _device_on(buffer._device)  # wgpu has no public way to ask (0.32)
        if device is None:
            raise InvalidArgumentError(
                "the buffer belongs to no open gpt2_wgpu device: call Device.from_wgpu with the "
                "wgpu.GPUDevice that made it, and keep that"
            )
        return device

    async def reopened(self) -> Device:
        """Open a new device with the same arguments and memory settings, on a current adapter."""
        if self.is_shared:
            raise DeviceLostError(
                f"the wgpu device on {self.info.name}, which another library opened, is lost: pass "
                "its new one to Device.from_wgpu and load the model again"
            )
        device = await Device.create(*self._asked)
        device.memory.inherit(self.memory)
        return device

    @property
    def successor(self) -> Device:
        """The replacement of this device after a loss; itself if it was not lost."""
        device = self
        while device.replacement is not None:
            device = device.replacement
        return device

    async def _open(
        self, power_preference: str, limits: str | Mapping[str, int], wanted: int | str | None
    ) -> None:
        self.is_shared = False  # whether self.gpu belongs to another library
        self._asked = (power_preference, limits, wanted)
        self.replacement: Device | None = None  # set after a loss
        adapter = await request_adapter(power_preference, wanted)
        self.info = AdapterInfo.from_adapter(adapter.info)
        features = [name for name in WANTED_FEATURES if name in adapter.features]
        required = wanted_limits(adapter, limits)
        try:
            self.gpu = await wait(
                adapter.request_device_async(
                    label=LABEL,
                    required_features=features,
                    required_limits=required,
                )
            )
        except (RuntimeError, ValueError) as error:
            raise LimitError(
                f"{self.info.name} rejects a device with limits {shown(limits)}: {one_line(error)}"
            ) from None
        try:
            self._set_up()
        except BaseException:  # the caller has no reference by which to close it
            self.is_open = False
            self.gpu.destroy()
            raise

    def _set_up(self) -> None:
        self.limits = {name.replace("_", "-"): value for name, value in self.gpu.limits.items()}
        self.features = frozenset(self.gpu.features)
        self.capabilities = Capabilities.of(self.info, self.limits, self.features)
        self.is_open = True
        self.memory = BufferPool(default_budget(self.info), self.create_buffer, self.flush)
        self.pipelines = PipelineCache(self)
        self.queue = CommandQueue(self, self.create_buffer(PARAMS_BYTES, "uniform"))
        self._tokens: list[Token[Device | None]] = []
        backends.on_loss(self.gpu, self._forget)
        with _registering:
            _devices.add(self)

    def create_buffer(self, nbytes: int, usage: str) -> Any:
        """Create a raw buffer for "storage", "staging" (readback), "uniform" or query "resolve"."""
        import wgpu

        flags = {
            "storage": wgpu.BufferUsage.STORAGE
            | wgpu.BufferUsage.COPY_DST
            | wgpu.BufferUsage.COPY_SRC,
            "staging": wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST,
            "uniform": wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST,
            "resolve": wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC,
        }
        if nbytes > self.limits["max-buffer-size"]:
            raise LimitError(
                f"a buffer of {nbytes:,} bytes exceeds this device's limit of "
                f"{self.limits['max-buffer-size']:,}"
            )
        with self.translated_errors(f"a {usage} buffer", nbytes):
            return self.gpu.create_buffer(size=nbytes, usage=flags[usage])

    @contextmanager
    def translated_errors(self, doing: str = "submitting work", nbytes: int = 0) -> Iterator[None]:
        """Translate wgpu's errors to this package's; the only code that parses wgpu's messages."""
        import wgpu

        try:
            yield
        except wgpu.GPUOutOfMemoryError:
            if backends.errors_are_async(self.gpu):
                self.memory.quarantine()
            raise OutOfGPUMemoryError(self._out_of_memory(nbytes, doing)) from None
        except wgpu.GPUPipelineError as error:  # asynchronous in browsers
            kernel, end, why = one_line(error).partition("}: ")  # of PipelineCache's label
            if not end:
                raise ShaderError(
                    f"a kernel does not compile on {self.info.name}: {kernel}"
                ) from None
            raise ShaderError(f"{kernel}}} does not compile on {self.info.name}: {why}") from None
        except (wgpu.GPUError, RuntimeError) as error:
            message = one_line(error)
            ours = isinstance(error, wgpu.GPUError) or message.startswith("Could not map buffer")
            if not ours or isinstance(error, DeviceError):
                raise  # an unrelated RuntimeError
            if "device is lost" in message or "map aborted" in message or not self.is_open:
                self._forget()
                raise DeviceLostError(
                    f"the device {self.info.name} is gone ({message}): open a new Device and load "
                    "the model again"
                ) from None
            if "Not enough memory" in message:
                raise OutOfGPUMemoryError(self._out_of_memory(nbytes, doing)) from None
            raise DeviceError(f"{self.info.name} failed while {doing}: {message}") from error

    def _forget(self) -> None:
        """Drop all GPU objects after a loss or close; later frees only update the counters."""
        self.is_open = False
        self.queue.forget()
        self.memory.forget()

    def bar(self) -> None:
        """Disable the device in a forked child: every use raises, without a call to wgpu."""
        if not isinstance(self.gpu, backends.UnusableGPU):  # the child of a child
            self.gpu = inherited(self.gpu, is_ours=not self.is_shared)
        self.queue.renew_lock(self.memory.renew_lock())
        self._forget()

    def _out_of_memory(self, nbytes: int, doing: str) -> str:
        return self.memory.rejection(nbytes, doing, f"the driver of {self.info.name}")

    @contextmanager
    def with_capabilities(self, **changes: int) -> Iterator[None]:
        """Choose kernels as on an adapter with other capabilities, within the block.

        For tests and microbenchmarks: ``with device.with_capabilities(prefers_no_barriers=False):``
        takes the kernels for GPUs on a CPU adapter. A step recorded before keeps its kernels.

        Args:
            changes: fields of ``capabilities`` and the values to assume.

        Raises:
            InvalidArgumentError: ``capabilities`` has no such field.
        """
        known = [field.name for field in fields(Capabilities)]
        for name in changes:
            if name not in known:
                raise InvalidArgumentError(f"no capability is called {name!r}: use one of {known}")
        own = self.capabilities
        self.capabilities = replace(own, **changes)  # type: ignore[arg-type]
        try:
            yield
        finally:
            self.capabilities = own

    async def lost(self) -> str:
        """Wait for the loss of the device; return the reason. Browsers only: wgpu has no event."""
        return await backends.lost(self.gpu)

    async def check_errors(self, doing: str, nbytes: int) -> None:
        """Wait for the queue and raise any pending device error.

        Only needed in browsers, where errors are asynchronous; a no-op natively. ``doing`` and
        ``nbytes`` are used in messages.
        """
        if backends.errors_are_async(self.gpu):
            with self.translated_errors(doing, nbytes):
                self.queue.flush()
                await wait(self.gpu.queue.on_submitted_work_done_async())

    def flush(self) -> None:
        """Submit pending work, so that the caller's own commands on ``gpu`` run after it.

        Not needed otherwise: reads and writes of tensors submit pending work.
        """
        self.queue.flush()

    def close(self) -> None:
        """Close the device; its tensors become unusable. Idempotent."""
        self.is_closed = True
        if not self.is_open:
            return
        self.memory.trim()
        with self.memory.lock:  # no thread is reading a mapped buffer
            self._forget()
            if self.is_shared:
                self.memory.destroy_in_use()
                self.queue.close()
                message = f"the device {self.info.name} is gone (closed): open a new Device"
                self.gpu = backends.UnusableGPU(self.gpu, DeviceLostError, message)
                return
            backends.flush_promises(self.gpu)
            self.gpu.destroy()

    def __enter__(self) -> Device:
        self._tokens.append(entered_device.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        entered_device.reset(self._tokens.pop())
        self.successor.close()
        self.close()

    _instead_of_pickling = "open a Device in the other process"

    def __copy__(self) -> Device:
        return self  # shared by all objects on it

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        return self

    def __str__(self) -> str:
        state = "" if self.is_open else " (closed)"
        return f"Device {self.info.name}, {self.info.backend}{state}"


# The device of the innermost ``with Device()`` of this task or thread.
entered_device: ContextVar[Device | None] = ContextVar("gpt2_wgpu_device", default=None)
_registering = threading.RLock()  # held to read or change _devices
_devices: weakref.WeakSet[Device] = weakref.WeakSet()


@after_fork
def _bar_all() -> None:
    global _registering
    _registering = threading.RLock()
    for device in list(_devices):
        device.bar()


def _device_on(gpu: wgpu.GPUDevice) -> Device | None:
    """Return the open device of ``gpu``, or None."""
    with _registering:
        return next((one for one in list(_devices) if one.gpu is gpu and one.is_open), None)
