"""Tensors, kernels and memory of a WebGPU device. Knows no language model."""

from __future__ import annotations

from . import layers, ops
from .capabilities import AdapterInfo, Capabilities
from .commands import Readback, Recording
from .device import Device, default_device, memory, set_default_device
from .memory import MemoryInfo
from .scopes import dispose, keep, tidy
from .self_check import Check, CheckReport, self_check, self_check_async
from .tensor import Tensor, empty, tensor
from .waiting import sync, wait

__all__ = [
    "AdapterInfo",
    "Capabilities",
    "Check",
    "CheckReport",
    "Device",
    "MemoryInfo",
    "Readback",
    "Recording",
    "Tensor",
    "default_device",
    "dispose",
    "empty",
    "keep",
    "layers",
    "memory",
    "ops",
    "self_check",
    "self_check_async",
    "set_default_device",
    "sync",
    "tensor",
    "tidy",
    "wait",
]
