"""Tensors, kernels and memory of a WebGPU device. Knows no language model."""

from __future__ import annotations

from gpt2_wgpu.gpu import layers, ops
from gpt2_wgpu.gpu.adapter import adapters
from gpt2_wgpu.gpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.gpu.creation import tensor
from gpt2_wgpu.gpu.device import (
    Device,
    default_device,
    default_device_async,
    set_default_device,
)
from gpt2_wgpu.gpu.profiling import Profile, profile, profile_async
from gpt2_wgpu.gpu.readback import Readback
from gpt2_wgpu.gpu.recording import Recording
from gpt2_wgpu.gpu.reports import (
    LiveTensor,
    leaks,
    memory,
    set_memory_budget,
    set_memory_debug,
    trim,
)
from gpt2_wgpu.gpu.scopes import dispose, end_scope, keep, start_scope
from gpt2_wgpu.gpu.self_check import Check, CheckReport
from gpt2_wgpu.gpu.storage import MemoryInfo
from gpt2_wgpu.gpu.streaming import ReadLimit, ReadRate, read_limit, read_limit_async
from gpt2_wgpu.gpu.tensor import Tensor, empty
from gpt2_wgpu.gpu.tidying import tidy
from gpt2_wgpu.gpu.waiting import sync, time_waiting, wait

__all__ = [
    "AdapterInfo",
    "Capabilities",
    "Check",
    "CheckReport",
    "Device",
    "LiveTensor",
    "MemoryInfo",
    "Profile",
    "ReadLimit",
    "ReadRate",
    "Readback",
    "Recording",
    "Tensor",
    "adapters",
    "default_device",
    "default_device_async",
    "dispose",
    "empty",
    "end_scope",
    "keep",
    "layers",
    "leaks",
    "memory",
    "ops",
    "profile",
    "profile_async",
    "read_limit",
    "read_limit_async",
    "set_default_device",
    "set_memory_budget",
    "set_memory_debug",
    "start_scope",
    "sync",
    "tensor",
    "tidy",
    "time_waiting",
    "trim",
    "wait",
]
