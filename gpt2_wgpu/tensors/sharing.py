"""Tensors over buffers of other programs that use the same ``wgpu.GPUDevice``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.tensor import FORMATS, Tensor, bytes_of
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.webgpu.device import device_of


def tensor_over(buffer: Any, shape: int | Sequence[int], dtype: str, label: str) -> Tensor:
    """See ``Tensor.from_wgpu``."""
    wgpu = load_wgpu()
    if not isinstance(buffer, wgpu.GPUBuffer):
        raise InvalidArgumentError(f"from_wgpu takes a wgpu.GPUBuffer, not {shown(buffer)}")
    if dtype not in FORMATS:
        raise InvalidArgumentError(f"dtype must be one of {tuple(FORMATS)}, not {shown(dtype)}")
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
    sizes = _sizes(shape)
    nbytes = bytes_of(math.prod(sizes), dtype)
    if nbytes > buffer.size:
        raise ShapeError(
            f"shape {sizes} in {dtype} needs {nbytes:,} bytes, and the buffer has {buffer.size:,}"
        )
    return Tensor(device, device.memory.adopt(buffer, nbytes), sizes, dtype, label)


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(map(index, shape if isinstance(shape, Sequence) else [shape]))
    except TypeError:
        sizes = (-1,)
    if min(sizes, default=0) < 0:
        raise InvalidArgumentError(f"shape must be integers of at least 0, not {shown(shape)}")
    return sizes
