"""Validation of buffers of other users of the same ``wgpu.GPUDevice``."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.webgpu.device import Device, device_of


def check_shareable(buffer: Any) -> Device:
    """Return the device of a caller's ``wgpu.GPUBuffer``.

    Raises:
        InvalidArgumentError: the object is not a buffer, has no STORAGE usage, or belongs to no
            open device.
    """
    wgpu = load_wgpu()
    if not isinstance(buffer, wgpu.GPUBuffer):
        raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUBuffer, not {shown(buffer)}")
    if not buffer.usage & wgpu.BufferUsage.STORAGE:
        raise InvalidArgumentError(
            "the buffer was created without the usage wgpu.BufferUsage.STORAGE, which kernels need"
        )
    device = device_of(buffer._device)  # wgpu 0.32 has no public attribute
    if device is None:
        raise InvalidArgumentError(
            "the buffer belongs to no open gpt2_wgpu device: call Device.from_wgpu with its "
            "wgpu.GPUDevice, and keep the result"
        )
    return device
