"""Adapter selection and requested device limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, NoAdapterError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.webgpu.capabilities import AdapterInfo
from gpt2_wgpu.webgpu.fork import check_not_forked
from gpt2_wgpu.webgpu.waiting import sync, wait

# WebGPU's guaranteed values (https://www.w3.org/TR/webgpu/#limits) of the limits used here.
# wgpu-native grants more unless limits are requested.
_GUARANTEED = {
    "max-buffer-size": 256 << 20,
    "max-storage-buffer-binding-size": 128 << 20,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-storage-size": 16 << 10,
    "max-storage-buffers-per-shader-stage": 8,
    "max-compute-workgroups-per-dimension": 65_535,
}
WANTED_FEATURES = ("timestamp-query", "subgroup")  # the latter natively only
_PREFERRED = {  # adapter types, best first
    "high-performance": {"DiscreteGPU": 0, "IntegratedGPU": 1, "CPU": 3},
    "low-power": {"IntegratedGPU": 0, "DiscreteGPU": 1, "CPU": 3},
}
_BACKENDS = ("Vulkan", "Metal", "D3D12")
# Environment variables that choose an adapter: wgpu-py's, the Vulkan loader's and Mesa's.
_CHOOSING = (
    "WGPUPY_WGPU_ADAPTER_NAME",
    "WGPU_BACKEND_TYPE",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
    "MESA_VK_DEVICE_SELECT",
)
# Variables read by Mesa's device-selection layer, and its switch: see `_calm_mesa`.
_SELECTING = {
    "DISPLAY",
    "DRI_PRIME",
    "MESA_VK_DEVICE_SELECT",
    "NODEVICE_SELECT",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XDG_RUNTIME_DIR",
}
_NO_ADAPTER = {
    "linux": "install a Vulkan driver: Mesa's, with a CPU one included, is the package "
    "`mesa-vulkan-drivers` (Debian, Ubuntu, Fedora) or `vulkan-swrast` (Arch)",
    "darwin": "Metal is built in: is this macOS 10.13 or newer?",
    "win32": "Direct3D 12 is built in: is the graphics driver installed?",
    "emscripten": "this browser offers no WebGPU adapter: update it, use https, or enable WebGPU",
}


def adapters() -> list[AdapterInfo]:
    """List the adapters of this machine; ``Device(adapter=i)`` opens the one at index ``i``.

    The order is that of the drivers: equal in all processes until drivers or hardware change.

    Returns:
        One `AdapterInfo` per adapter; OpenGL adapters are omitted.
    """
    found = sync(_enumerate(), "gpu.adapter._enumerate()")
    return [AdapterInfo.from_adapter(adapter.info) for adapter in found]


async def request_adapter(power_preference: str, adapter: int | str | None = None) -> Any:
    """Return the requested adapter, or the one that wgpu prefers; errors as in ``Device``."""
    if power_preference not in _PREFERRED:
        raise InvalidArgumentError(
            "power_preference must be 'high-performance' or 'low-power', not "
            f"{shown(power_preference)}"
        )
    if adapter is not None:
        return _named(adapter, await _enumerate())
    _check_forced_backend()
    wgpu = _wgpu()
    with _no_adapter_if_it_fails():
        found = await wait(wgpu.gpu.request_adapter_async(power_preference=power_preference))
    if not _is_opengl(found):
        return found
    named = "WGPUPY_WGPU_ADAPTER_NAME" in _forced()
    if not (others := [] if named else await _enumerate()):
        raise NoAdapterError(_no_adapter("wgpu: only an OpenGL adapter, which is not supported"))
    order = _PREFERRED[power_preference]
    return min(others, key=lambda one: order.get(str(one.info["adapter_type"]), 2))


async def _enumerate() -> list[Any]:
    """Return all adapters except OpenGL's, which lack required features and limits."""
    wgpu = _wgpu()
    with _no_adapter_if_it_fails():
        found = await wait(wgpu.gpu.enumerate_adapters_async())
    return [one for one in found if not _is_opengl(one)]


def _is_opengl(adapter: Any) -> bool:
    return str(adapter.info["backend_type"]).startswith("OpenGL")


def _named(wanted: int | str, found: Sequence[Any]) -> Any:
    """Return the adapter at index ``wanted``, or the first whose name contains it."""
    if isinstance(wanted, bool) or not isinstance(wanted, int | str) or wanted == "":
        raise InvalidArgumentError(
            f"adapter must be an index, part of a name or None, not {shown(wanted)}"
        )
    for index, adapter in enumerate(found):
        is_it = index == wanted
        if isinstance(wanted, str):
            is_it = wanted.lower() in AdapterInfo.from_adapter(adapter.info).name.lower()
        if is_it:
            return adapter
    names = [AdapterInfo.from_adapter(adapter.info).name for adapter in found]
    there = ", ".join(f"{index}: {name}" for index, name in enumerate(names)) or "none"
    why = f"; {_blamed()}" if not names and _forced() else ""
    raise NoAdapterError(f"no adapter {shown(wanted)}; available adapters: {there}{why}")


def _forced() -> dict[str, str]:
    """Return the set environment variables by which wgpu or a driver selects an adapter."""
    if sys.platform == "emscripten":
        return {}
    return {name: value for name in _CHOOSING if (value := os.environ.get(name, "").strip())}


def _blamed() -> str:
    """Return the remedy for environment variables that select an adapter."""
    named = ", ".join(f"{name}={shown(value)}" for name, value in _forced().items())
    return f"the environment has {named}: change or unset that"


def _check_forced_backend() -> None:
    """Raise ``NoAdapterError`` for a backend unknown to wgpu, which would ignore it."""
    backend = _forced().get("WGPU_BACKEND_TYPE")
    if backend not in (None, *_BACKENDS):
        raise NoAdapterError(
            f"the environment variable WGPU_BACKEND_TYPE is {shown(backend)}, which is not "
            f"supported: unset it, or set it to {', '.join(_BACKENDS)}"
        )


def _no_adapter(why: str) -> str:
    """Return the message of ``NoAdapterError``, with environment variables as possible causes."""
    remedy = _NO_ADAPTER.get(sys.platform, "install a Vulkan driver")
    if _forced():
        remedy = f"{_blamed()}, or {remedy}"
    return f"no GPU adapter found: {remedy} ({why})"


@contextmanager
def _no_adapter_if_it_fails() -> Iterator[None]:
    try:
        with _calm_mesa():
            yield
    except Exception as error:
        raise NoAdapterError(_no_adapter(f"wgpu: {one_line(error)}")) from None


@contextmanager
def _calm_mesa() -> Iterator[None]:
    """Suppress a message of Mesa's device-selection layer outside of desktop sessions.

    The layer queries Wayland for the GPU of the desktop; libwayland then prints "error:
    XDG_RUNTIME_DIR is invalid or not set in the environment" (Mesa 22.3; see
    https://github.com/KhronosGroup/Vulkan-Tools/issues/721). Without a session or display the
    layer selects nothing, so disabling it does not change the adapters. Remove when Mesa queries
    Wayland only within a session.
    """
    if sys.platform != "linux" or not _SELECTING.isdisjoint(os.environ):
        yield
        return
    os.environ["NODEVICE_SELECT"] = "1"
    try:
        yield
    finally:
        os.environ.pop("NODEVICE_SELECT", None)


def one_line(error: Exception) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())


def _wgpu() -> Any:
    """Return the package wgpu, with the instance configured by the program or by default."""
    check_not_forked()
    return load_wgpu()


def wanted_limits(adapter: Any, limits: str | Mapping[str, int]) -> dict[str, int]:
    """Return the limits to request of ``adapter``; ``limits`` as in ``Device``."""
    if isinstance(limits, Mapping):
        return dict(limits)
    if limits == "default":
        return dict(_GUARANTEED)
    if limits != "adapter":
        raise InvalidArgumentError(
            f"limits: 'adapter', 'default' or a mapping, not {shown(limits)}"
        )
    offered = {name.replace("_", "-"): value for name, value in adapter.limits.items()}
    return {name: offered[name] for name in _GUARANTEED}
