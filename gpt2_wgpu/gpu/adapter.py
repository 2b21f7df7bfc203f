"""Finding an adapter, and what is asked of it."""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from gpt2_wgpu.errors import GPT2WGPUError, InvalidArgumentError, NoAdapterError
from gpt2_wgpu.gpu.bindings import load_wgpu
from gpt2_wgpu.gpu.capabilities import AdapterInfo
from gpt2_wgpu.gpu.fork import check_not_forked
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
WANTED_FEATURES = ("timestamp-query",)
_NO_ADAPTER = {
    "linux": "install a Vulkan driver: Mesa's, with a CPU one included, is the package "
    "`mesa-vulkan-drivers` (Debian, Ubuntu, Fedora) or `vulkan-swrast` (Arch)",
    "darwin": "Metal is built in: is this macOS 10.13 or newer?",
    "win32": "Direct3D 12 is built in: is the graphics driver installed?",
    "emscripten": "this browser offers no WebGPU adapter: update it, use https, or enable WebGPU",
}


def adapters() -> list[AdapterInfo]:
    """The adapters of this machine; ``Device(adapter=i)`` opens the one at index ``i``.

    Their order is the drivers': the same in every process of a machine until it changes.
    """
    found = sync(_enumerate(), "gpu.adapter._enumerate()")
    return [AdapterInfo.from_adapter(adapter.info) for adapter in found]


async def request_adapter(power_preference: str, adapter: int | str | None = None) -> Any:
    """The adapter that is named, or the one that wgpu prefers; raises as ``Device`` does."""
    if power_preference not in ("high-performance", "low-power"):
        raise InvalidArgumentError(
            "power_preference must be 'high-performance' or 'low-power', not "
            f"{reprlib.repr(power_preference)}"
        )
    if adapter is not None:
        return _named(adapter, await _enumerate())
    with _no_adapter_if_it_fails():
        wgpu = _wgpu()
        return await wait(wgpu.gpu.request_adapter_async(power_preference=power_preference))


async def _enumerate() -> list[Any]:
    with _no_adapter_if_it_fails():
        found = await wait(_wgpu().gpu.enumerate_adapters_async())
    # Listed all the same where a program has used wgpu before us.
    return [one for one in found if not str(one.info["backend_type"]).startswith("OpenGL")]


def _named(wanted: int | str, found: Sequence[Any]) -> Any:
    """The adapter at index ``wanted``, or the first whose name contains it."""
    if isinstance(wanted, bool) or not isinstance(wanted, int | str) or wanted == "":
        raise InvalidArgumentError(
            f"adapter must be an index, a part of a name or None, not {reprlib.repr(wanted)}"
        )
    for index, adapter in enumerate(found):
        is_it = index == wanted
        if isinstance(wanted, str):
            is_it = wanted.lower() in AdapterInfo.from_adapter(adapter.info).name.lower()
        if is_it:
            return adapter
    names = [AdapterInfo.from_adapter(adapter.info).name for adapter in found]
    there = ", ".join(f"{index} is {name}" for index, name in enumerate(names)) or "there is none"
    raise NoAdapterError(f"no adapter {reprlib.repr(wanted)} on this machine: {there}")


@contextmanager
def _no_adapter_if_it_fails() -> Iterator[None]:
    try:
        with _calm_mesa():
            yield
    except GPT2WGPUError:
        raise
    except Exception as error:
        remedy = _NO_ADAPTER.get(sys.platform, "install a Vulkan driver")
        raise NoAdapterError(f"no GPU adapter found: {remedy} (wgpu: {one_line(error)})") from None


@contextmanager
def _calm_mesa() -> Iterator[None]:
    """Keeps Mesa's device-selection layer from complaining where there is no desktop session.

    The layer asks Wayland which GPU shows the desktop; libwayland then prints "error:
    XDG_RUNTIME_DIR is invalid or not set in the environment" (Mesa 22.3; the same in
    https://github.com/KhronosGroup/Vulkan-Tools/issues/721). Without a session the layer has
    nothing to select by, so it stays out. Can go when Mesa asks only inside a session.
    """
    selecting = {"XDG_RUNTIME_DIR", "DRI_PRIME", "MESA_VK_DEVICE_SELECT", "NODEVICE_SELECT"}
    if sys.platform != "linux" or not selecting.isdisjoint(os.environ):
        yield
        return
    os.environ["NODEVICE_SELECT"] = "1"
    try:
        yield
    finally:
        os.environ.pop("NODEVICE_SELECT", None)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wgpu() -> Any:
    """wgpu, restricted to the backends that pass our tests."""
    check_not_forked()
    wgpu = load_wgpu()
    if sys.platform != "emscripten":
        _without_opengl()
    return wgpu


def _without_opengl() -> None:
    """wgpu's OpenGL backend reports adapters that lack features and limits we rely on, and probing
    it prints to stderr. It can only be left out before wgpu's instance exists: a program that has
    used wgpu before keeps what it chose.
    """
    from wgpu.backends.wgpu_native.extras import set_instance_extras

    global _instance_configured
    if not _instance_configured:
        _instance_configured = True
        with suppress(RuntimeError):  # an instance exists already
            set_instance_extras(backends=["Vulkan", "Metal", "DX12"])


_instance_configured = False


def wanted_limits(adapter: Any, limits: str | Mapping[str, int]) -> dict[str, int]:
    if isinstance(limits, Mapping):
        return dict(limits)
    if limits == "default":
        return dict(_GUARANTEED)
    if limits != "adapter":
        raise InvalidArgumentError(
            f"limits: 'adapter', 'default' or a mapping, not {reprlib.repr(limits)}"
        )
    offered = {name.replace("_", "-"): value for name, value in adapter.limits.items()}
    return {name: offered[name] for name in _GUARANTEED}
