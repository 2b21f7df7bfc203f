"""WebGPU through wgpu-py: adapters, devices, buffers, pipelines, the queue. Knows no tensors."""

from __future__ import annotations

from gpt2_wgpu.webgpu.adapter import adapters
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.webgpu.defaults import (
    checked_device,
    default_device,
    default_device_async,
    set_default_device,
)
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.readback import Readback
from gpt2_wgpu.webgpu.recording import Recording
from gpt2_wgpu.webgpu.storage import MemoryInfo
from gpt2_wgpu.webgpu.waiting import sync, time_waiting, wait

__all__ = [
    "AdapterInfo",
    "Capabilities",
    "Device",
    "MemoryInfo",
    "Readback",
    "Recording",
    "adapters",
    "checked_device",
    "default_device",
    "default_device_async",
    "set_default_device",
    "sync",
    "time_waiting",
    "wait",
]
