"""Dispatch of a kernel on tensors.

All kernels run through :func:`dispatch`. Outside a ``Recording`` the dispatch is added to the
device's queue; inside one it is recorded. The recorded list (pipeline, bind group, grid) is what
other APIs call a captured graph; replaying it creates no GPU objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2_wgpu.errors import LimitError, ShaderError
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.pipelines import check_bindings
from gpt2_wgpu.webgpu.queue import Dispatch, DispatchLabel, Grid, open_recorder
from gpt2_wgpu.webgpu.readback import Range


@dataclass(frozen=True)
class BufferSlice:
    """A byte range of a tensor's buffer, to bind less than all (offset: a multiple of 256)."""

    tensor: Tensor
    offset: int
    nbytes: int


Binding = Tensor | BufferSlice


def dispatch(
    device: Device,
    name: str,
    grid: Grid,
    bindings: Mapping[str, Binding],
    params: Mapping[str, int | float],
    *,
    variant: Mapping[str, str] | None = None,
    constants: Mapping[str, int | float] | None = None,
) -> None:
    """Queue or record a dispatch of kernel ``name`` over ``grid`` workgroups.

    Raises:
        ShaderError: wrong bindings or parameters.
        LimitError: a binding or the grid exceeds the device's limits.
        DisposedTensorError: a tensor is disposed.
    """
    kernel = device.pipelines.get(name, variant, constants)
    check_bindings(kernel, bindings)
    if max(grid) > device.limits["max-compute-workgroups-per-dimension"]:
        raise LimitError(f"kernel {name}: {grid} workgroups exceed the device's limit")
    if min(grid) == 0:
        return  # an empty tensor
    ranges = {key: _range_of(device, name, key, value) for key, value in bindings.items()}
    recorder = open_recorder.get()
    shapes = {key: _shape_of(value) for key, value in bindings.items()}
    label = DispatchLabel(name, shapes, {key: nbytes for key, (_, _, nbytes) in ranges.items()})
    work = Dispatch(kernel, ranges, kernel.pack(params), grid, label)
    if recorder is not None and recorder.device is device:
        recorder.add(work)
    else:
        device.queue.add(work)


def _shape_of(binding: Binding) -> tuple[int, ...]:
    return binding.shape if isinstance(binding, Tensor) else binding.tensor.shape


def _range_of(device: Device, kernel: str, name: str, binding: Binding) -> Range:
    tensor = binding if isinstance(binding, Tensor) else binding.tensor
    tensor.check()
    if tensor.device is not device:
        raise ShaderError(f"kernel {kernel}: {name} is {tensor}, which is on another device")
    if isinstance(binding, BufferSlice):
        found = (tensor.storage, binding.offset, binding.nbytes)
    else:
        found = (tensor.storage, 0, max(4, -(-tensor.nbytes // 4) * 4))
    if found[2] > device.limits["max-storage-buffer-binding-size"]:
        raise LimitError(
            f"kernel {kernel}: {name} needs {found[2]:,} bytes in one binding; this device allows "
            f"{device.limits['max-storage-buffer-binding-size']:,}"
        )
    return found
