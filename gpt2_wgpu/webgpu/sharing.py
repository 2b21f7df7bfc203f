"""Buffers of other programs that use the same ``wgpu.GPUDevice``."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.webgpu.device import Device, device_of


def check_shareable(buffer: Any) -> Device:
    """Device of a caller's ``wgpu.GPUBuffer`` that kernels can use.

    Raises ``InvalidArgumentError`` for another object, for a buffer without the usage STORAGE and
    for one of a ``wgpu.GPUDevice`` that no open device computes on.
    """
    wgpu = load_wgpu()
    if not isinstance(buffer, wgpu.GPUBuffer):
        raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUBuffer, not {shown(buffer)}")
    if not buffer.usage & wgpu.BufferUsage.STORAGE:
        raise InvalidArgumentError(
            "the buffer was made without the usage wgpu.BufferUsage.STORAGE, which kernels need"
        )
    device = device_of(buffer._device)  # wgpu has no public way to ask (0.32)
    if device is None:
        raise InvalidArgumentError(
            "the buffer belongs to no open gpt2_wgpu device: call Device.from_wgpu with the "
            "wgpu.GPUDevice that made it, and keep that"
        )
    return device
