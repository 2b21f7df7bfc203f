"""The device: an adapter's queue, limits, memory and kernels; and which one is the default."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

from gpt2_wgpu.errors import (
    DeviceError,
    DeviceLostError,
    InvalidArgumentError,
    LimitError,
    NoAdapterError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.gpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.gpu.commands import CommandQueue
from gpt2_wgpu.gpu.kernels import KernelCache
from gpt2_wgpu.gpu.memory import MemoryManager
from gpt2_wgpu.gpu.waiting import sync, wait

# What WebGPU guarantees (https://www.w3.org/TR/webgpu/#limits), of the limits that matter here.
# wgpu-native gives more than that unless told.
_GUARANTEED = {
    "max-buffer-size": 256 << 20,
    "max-storage-buffer-binding-size": 128 << 20,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-storage-size": 16 << 10,
    "max-storage-buffers-per-shader-stage": 8,
    "max-compute-workgroups-per-dimension": 65_535,
}
_WANTED_FEATURES = ("subgroup", "subgroups", "timestamp-query")
_NO_ADAPTER = {
    "linux": "install a Vulkan driver: Mesa's, with a CPU one included, is the package "
    "`mesa-vulkan-drivers` (Debian, Ubuntu, Fedora) or `vulkan-swrast` (Arch)",
    "darwin": "Metal is built in: is this macOS 10.13 or newer?",
    "win32": "Direct3D 12 is built in: is the graphics driver installed?",
    "emscripten": "this browser offers no WebGPU adapter: update it, use https, or enable WebGPU",
}


class Device:
    """A GPU that computes; ``with Device():`` makes it the default inside.

    ``power_preference``: "high-performance" (default) or "low-power". ``limits``: "adapter" asks
    for the adapter's own, "default" for WebGPU's guaranteed minimum, a mapping for these limits.

    Raises ``NoAdapterError`` when no adapter is found, ``LimitError`` when it refuses the limits.
    """

    info: AdapterInfo
    limits: Mapping[str, int]
    features: frozenset[str]
    capabilities: Capabilities
    gpu: Any  # wgpu.GPUDevice
    memory: MemoryManager
    queue: CommandQueue
    kernels: KernelCache

    def __init__(
        self,
        power_preference: str = "high-performance",
        limits: str | Mapping[str, int] = "adapter",
    ) -> None:
        self.is_open = self.is_closed = False
        sync(self._open(power_preference, limits), "Device.create(...)")

    @classmethod
    async def create(
        cls,
        power_preference: str = "high-performance",
        limits: str | Mapping[str, int] = "adapter",
    ) -> Device:
        """The asynchronous constructor."""
        self = cls.__new__(cls)
        self.is_open = self.is_closed = False
        await self._open(power_preference, limits)
        return self

    async def reopened(self) -> Device:
        """A new device in place of this one, which is lost, on what adapter there is now.

        It becomes the shared default if this one was.
        """
        global _shared
        device = await Device.create(*self._asked)
        if _shared is self:
            _shared = device
        return device

    async def _open(self, power_preference: str, limits: str | Mapping[str, int]) -> None:
        self._asked = (power_preference, limits)
        adapter = await _request_adapter(power_preference)
        self.info = AdapterInfo.from_adapter(adapter.info)
        features = [name for name in _WANTED_FEATURES if name in adapter.features]
        wanted = _wanted_limits(adapter, limits)
        try:
            self.gpu = await wait(
                adapter.request_device_async(
                    label="gpt2-wgpu",
                    required_features=features,
                    required_limits=wanted,
                )
            )
        except Exception as error:
            raise LimitError(
                f"{self.info.name} refuses a device with limits {limits}: {_one_line(error)}"
            ) from None
        self.limits = {name.replace("_", "-"): value for name, value in self.gpu.limits.items()}
        self.features = frozenset(self.gpu.features)
        self.capabilities = Capabilities.of(self.info, self.limits)
        self.is_open = True
        self.memory = MemoryManager(self)
        self.kernels = KernelCache(self)
        self.queue = CommandQueue(self)
        self._tokens: list[Token[Device | None]] = []

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
            raise OutOfGPUMemoryError(self._out_of_memory(nbytes, doing)) from None
        except (wgpu.GPUError, RuntimeError) as error:
            if isinstance(error, DeviceError):
                raise
            message = _one_line(error)
            if "lost" in message or not self.is_open:
                self.is_open = False
                raise DeviceLostError(
                    f"the device {self.info.name} is gone ({message}): open a new Device and load "
                    "the model again"
                ) from None
            if "Not enough memory" in message:
                raise OutOfGPUMemoryError(self._out_of_memory(nbytes, doing)) from None
            raise DeviceError(f"{self.info.name} failed while {doing}: {message}") from error

    def _out_of_memory(self, nbytes: int, doing: str) -> str:
        return self.memory.refusal(nbytes, doing, f"the driver of {self.info.name}")

    def close(self) -> None:
        """Give the device back; its tensors become unusable. Idempotent."""
        self.is_closed = True
        if self.is_open:
            self.memory.trim()
            self.is_open = False
            self.gpu.destroy()

    def __enter__(self) -> Device:
        self._tokens.append(_default.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _default.reset(self._tokens.pop())
        self.close()

    def __repr__(self) -> str:
        state = "" if self.is_open else " (closed)"
        return f"<Device {self.info.name}, {self.info.backend}{state}>"


async def _request_adapter(power_preference: str) -> Any:
    if power_preference not in ("high-performance", "low-power"):
        raise InvalidArgumentError(
            f"power_preference must be 'high-performance' or 'low-power', not {power_preference!r}"
        )
    wgpu = _wgpu_without_opengl()
    try:
        adapter = await wait(wgpu.gpu.request_adapter_async(power_preference=power_preference))
    except Exception as error:
        remedy = _NO_ADAPTER.get(sys.platform, "install a Vulkan driver")
        raise NoAdapterError(f"no GPU adapter found ({_one_line(error)}): {remedy}") from None
    return adapter


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wgpu_without_opengl() -> Any:
    """wgpu, restricted to the backends that pass our tests.

    wgpu's OpenGL backend reports adapters that lack features and limits we rely on, and probing
    it prints to stderr. Only possible before wgpu's instance exists: a program that has used wgpu
    before keeps what it chose.
    """
    import wgpu

    if sys.platform != "emscripten":
        from wgpu.backends.wgpu_native.extras import set_instance_extras

        global _instance_configured
        if not _instance_configured:
            _instance_configured = True
            try:
                set_instance_extras(backends=["Vulkan", "Metal", "DX12"])
            except RuntimeError:
                return wgpu  # an instance exists already
    return wgpu


_instance_configured = False


def _wanted_limits(adapter: Any, limits: str | Mapping[str, int]) -> dict[str, int]:
    if isinstance(limits, Mapping):
        return dict(limits)
    if limits == "default":
        return dict(_GUARANTEED)
    if limits != "adapter":
        raise InvalidArgumentError(f"limits: 'adapter', 'default' or a mapping, not {limits!r}")
    offered = {name.replace("_", "-"): value for name, value in adapter.limits.items()}
    return {name: offered[name] for name in _GUARANTEED}


_default: ContextVar[Device | None] = ContextVar("gpt2_wgpu_device", default=None)
_shared: Device | None = None


def default_device() -> Device:
    """The innermost ``with Device()``, else the one of ``set_default_device``, else a new one."""
    global _shared
    device = _default.get() or _shared
    if device is None or not device.is_open:
        device = _shared = Device()
    return device


def set_default_device(device: Device | None) -> None:
    """Use ``device`` wherever none is named; None: open one again on next use."""
    global _shared
    _shared = device


def current_device() -> Device | None:
    """The default device if one is open already; unlike ``default_device`` it opens none."""
    return _default.get() or _shared
