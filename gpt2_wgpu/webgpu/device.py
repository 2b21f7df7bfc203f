"""The device: an adapter's queue, limits, memory and kernels; and which one is the default."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
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


class Device(NotPicklable):
    """A GPU that computes; ``with Device():`` makes it the default inside (for this thread or
    task and the tasks it starts).

    ``power_preference``: "high-performance" (default) or "low-power". ``limits``: "adapter" asks
    for the adapter's own, "default" for WebGPU's guaranteed minimum, a mapping for these limits.
    ``adapter``: an index of :func:`adapters` or a part of a name (any case; the first that has it),
    on a machine with several; None takes what wgpu prefers.

    Raises ``NoAdapterError`` when no adapter is found, ``LimitError`` when it refuses the limits.
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
        """The asynchronous constructor."""
        self = cls.__new__(cls)
        self.is_open = self.is_closed = False
        await self._open(power_preference, limits, adapter)
        return self

    @classmethod
    def from_wgpu(cls, gpu: wgpu.GPUDevice) -> Device:
        """A device on a ``wgpu.GPUDevice`` that another library, or the caller, has opened.

        Both use its queue, and may share buffers (``Tensor.from_wgpu``, ``Tensor.buffer``). A
        second call gives the same ``Device``. ``close`` frees what was allocated here and leaves
        ``gpu`` open; when ``gpu`` is lost, only its owner can replace it.

        Raises ``InvalidArgumentError`` for another object, ``DeviceLostError`` for a lost device.
        """
        wgpu = load_wgpu()
        check_not_forked()
        if not isinstance(gpu, wgpu.GPUDevice):
            raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUDevice, not {shown(gpu)}")
        with _registering:  # two threads that ask at once get the same one
            if (known := device_of(gpu)) is not None:
                return known
            self = cls.__new__(cls)
            self.is_open = self.is_closed = False
            self.is_shared, self.replacement = True, None
            self.gpu, self.info = gpu, AdapterInfo.from_adapter(gpu.adapter.info)
            self._set_up()
            return self

    async def reopened(self) -> Device:
        """A new device like this one, on what adapter there is now; memory settings go with it."""
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
        """The device that stands in for this one after a loss; itself if there was none."""
        device = self
        while device.replacement is not None:
            device = device.replacement
        return device

    async def _open(
        self, power_preference: str, limits: str | Mapping[str, int], wanted: int | str | None
    ) -> None:
        self.is_shared = False  # self.gpu is another library's, too
        self._asked = (power_preference, limits, wanted)
        self.replacement: Device | None = None  # after a loss
        adapter = await request_adapter(power_preference, wanted)
        self.info = AdapterInfo.from_adapter(adapter.info)
        features = [name for name in WANTED_FEATURES if name in adapter.features]
        required = wanted_limits(adapter, limits)
        try:
            self.gpu = await wait(
                adapter.request_device_async(
                    label="gpt2-wgpu",
                    required_features=features,
                    required_limits=required,
                )
            )
        except (RuntimeError, ValueError) as error:
            raise LimitError(
                f"{self.info.name} refuses a device with limits {shown(limits)}: {one_line(error)}"
            ) from None
        try:
            self._set_up()
        except BaseException:  # nobody has it yet who could close it
            self.is_open = False
            self.gpu.destroy()
            raise

    def _set_up(self) -> None:
        self.limits = {name.replace("_", "-"): value for name, value in self.gpu.limits.items()}
        self.features = frozenset(self.gpu.features)
        self.capabilities = Capabilities.of(self.info, self.limits)
        self.is_open = True
        self.memory = BufferPool(default_budget(self.info), self.create_buffer, self.flush)
        self.pipelines = PipelineCache(self)
        self.queue = CommandQueue(self, self.create_buffer(PARAMS_BYTES, "uniform"))
        self._tokens: list[Token[Device | None]] = []
        backends.on_loss(self.gpu, self._forget)
        with _registering:
            _devices.add(self)

    def create_buffer(self, nbytes: int, usage: str) -> Any:
        """A raw buffer: for "storage", "staging" (mapped to read), "uniform" or query "resolve"."""
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
        """Turns wgpu's errors into ours; one place knows wgpu's messages."""
        import wgpu

        try:
            yield
        except wgpu.GPUOutOfMemoryError:
            if backends.tells_late(self.gpu):
                self.memory.quarantine()
            raise OutOfGPUMemoryError(self._out_of_memory(nbytes, doing)) from None
        except wgpu.GPUPipelineError as error:  # browsers tell of these later
            kernel, _, why = one_line(error).partition(": ")
            raise ShaderError(f"{kernel} does not compile on {self.info.name}: {why}") from None
        except (wgpu.GPUError, RuntimeError) as error:
            message = one_line(error)
            ours = isinstance(error, wgpu.GPUError) or message.startswith("Could not map buffer")
            if not ours or isinstance(error, DeviceError):
                raise  # a RuntimeError of somebody else's
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
        """Nothing of this device can be used any more; what is freed is only counted."""
        self.is_open = False
        self.queue.forget()
        self.memory.forget()

    def bar(self) -> None:
        """In a forked child: raise at every use from now on, without a call to wgpu."""
        if not isinstance(self.gpu, backends.UnusableGPU):  # the child of a child
            self.gpu = inherited(self.gpu, is_ours=not self.is_shared)
        self.queue.renew_lock(self.memory.renew_lock())
        self._forget()

    def _out_of_memory(self, nbytes: int, doing: str) -> str:
        return self.memory.rejection(nbytes, doing, f"the driver of {self.info.name}")

    async def lost(self) -> str:
        """Wait until the device is lost; why. In browsers only: wgpu does not tell elsewhere."""
        return await backends.lost(self.gpu)

    async def settled(self, doing: str, nbytes: int) -> None:
        """Raise what went wrong so far while ``doing`` something that took ``nbytes``.

        For browsers, which tell only whoever waits; elsewhere it has been raised before.
        """
        if backends.tells_late(self.gpu):
            with self.translated_errors(doing, nbytes):
                self.queue.flush()
                await wait(self.gpu.queue.on_submitted_work_done_async())

    def flush(self) -> None:
        """Submit what is pending, for commands of other programs on this device to come after it.

        Only they need this: what reads or writes tensors submits what is pending by itself.
        """
        self.queue.flush()

    def close(self) -> None:
        """Give the device back; its tensors become unusable. Idempotent."""
        self.is_closed = True
        if not self.is_open:
            return
        self.memory.trim()
        with self.memory.lock:  # no thread is in the middle of a mapped buffer
            self._forget()
            if self.is_shared:
                self.memory.destroy_in_use()
                self.queue.close()
                message = f"the device {self.info.name} is gone (closed): open a new Device"
                self.gpu = backends.UnusableGPU(self.gpu, DeviceLostError, message)
                return
            backends.settle(self.gpu)
            self.gpu.destroy()

    def __enter__(self) -> Device:
        self._tokens.append(_default.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _default.reset(self._tokens.pop())
        self.successor.close()
        self.close()

    _instead_of_pickling = "open a Device in the other process"

    def __copy__(self) -> Device:
        return self  # there is one for all that lives on it

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        return self

    def __str__(self) -> str:
        state = "" if self.is_open else " (closed)"
        return f"Device {self.info.name}, {self.info.backend}{state}"


_default: ContextVar[Device | None] = ContextVar("gpt2_wgpu_device", default=None)
_shared: Device | None = None
_opening = threading.Lock()
_registering = threading.RLock()  # held to read or change _devices
_devices: weakref.WeakSet[Device] = weakref.WeakSet()


@after_fork
def _bar_all() -> None:
    global _opening, _registering
    _opening, _registering = threading.Lock(), threading.RLock()
    for device in list(_devices):
        device.bar()


def default_device() -> Device:
    """The innermost ``with Device()``, else the one of ``set_default_device``, else a new one."""
    global _shared
    with _opening:
        device = current_device()
        if device is None or not device.is_open:
            device = _shared = Device()
        return device


def device_of(gpu: wgpu.GPUDevice) -> Device | None:
    """The open device that computes on ``gpu``."""
    with _registering:
        return next((one for one in list(_devices) if one.gpu is gpu and one.is_open), None)


async def default_device_async() -> Device:
    """The asynchronous form of :func:`default_device`."""
    global _shared
    device = current_device()
    if device is None or not device.is_open:
        device = await Device.create()
        _shared = device
    return device


def set_default_device(device: Device | None) -> None:
    """Use ``device`` wherever none is named; None: open one again on next use."""
    global _shared
    _shared = device


def current_device() -> Device | None:
    """The default device if one is open already; unlike ``default_device`` it opens none."""
    device = _default.get() or _shared
    return None if device is None else device.successor
