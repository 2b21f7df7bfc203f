"""Part 1: which adapter, driver, limits and features; software adapters are rejected."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.parts import Context, Section
from gpt2_wgpu.bench import machine

REMEDY = (
    "install the GPU's driver (Linux: with Vulkan; `vulkaninfo --summary` lists what there is), "
    "name one with --adapter, or measure this one with --software"
)
CONTAINER = (
    "in a container the NVIDIA driver needs NVIDIA_DRIVER_CAPABILITIES=all when it starts, "
    "and VK_DRIVER_FILES=/usr/share/vulkan/icd.d/nvidia_icd.json or /etc/vulkan/icd.d/..."
)
_NVIDIA = ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia/version")


class NoGPUError(Exception):
    """There is no GPU to measure."""


def open_device(wanted: int | str | None, software: bool) -> gw.Device:
    """Open the adapter; `NoGPUError` if there is none, or only a software one."""
    try:
        device = gw.Device(adapter=wanted)
    except gw.errors.NoAdapterError as error:
        raise NoGPUError(f"no GPU here: {error}{_hint()}") from None
    if device.info.is_software and not software:
        name = device.info.name
        device.close()
        raise NoGPUError(f"no GPU here, only {name}, which runs on the CPU: {REMEDY}{_hint()}")
    return device


def _hint() -> str:
    """Return the remedy where the machine has an NVIDIA GPU that Vulkan does not show."""
    there = sys.platform == "linux" and any(Path(name).exists() for name in _NVIDIA)
    return f" ({CONTAINER})" if there else ""


def time_pipelines(context: Context) -> None:
    """Note the seconds of each pipeline that the device compiles from here on."""
    pipelines = context.device.pipelines
    compile_one = pipelines._compile

    def timed(name: str, variant: Any, constants: Any) -> Any:
        begun = time.perf_counter()
        kernel = compile_one(name, variant, constants)
        parts = [f"{key}={value}" for key, value in (*variant, *constants)]
        context.compile_seconds[" ".join([name, *parts])] = time.perf_counter() - begun
        return kernel

    vars(pipelines)["_compile"] = timed


def measure(context: Context, section: Section) -> None:
    """Describe adapter and machine."""
    device = context.device
    info: Any = device.gpu.adapter.info
    section["info"] = {key: str(value) for key, value in dict(info).items()}
    section["features"] = sorted(map(str, device.gpu.adapter.features))
    section["limits"] = dict(device.limits)
    section["adapters"] = [f"{one.name} ({one.backend})" for one in gw.adapters()]
    section["cpu_count"] = os.cpu_count()
    section["loadavg"] = machine.load_average()
