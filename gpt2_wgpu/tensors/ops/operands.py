"""Operands of the operations: conversion to tensors and checks of dtype and device."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import FORMATS, Tensor, empty
from gpt2_wgpu.webgpu.defaults import default_device
from gpt2_wgpu.webgpu.device import Device

# A Tensor, a number, nested sequences, a NumPy array: any value that ``gpt2_wgpu.tensor`` accepts.
TensorLike: TypeAlias = Any

ANY_DTYPE = tuple(FORMATS)


def operands(
    function: str, *values: TensorLike, dtypes: Sequence[str] = ("float32",)
) -> list[Tensor]:
    """Return ``values`` as tensors of one device and one of ``dtypes``.

    Other values are converted to the dtype of the tensors, or the first of ``dtypes``. They belong
    to the open scope, so call this inside ``tidy``. InvalidArgumentError for an unsupported dtype,
    mixed dtypes or mixed devices.
    """
    given = [value for value in values if isinstance(value, Tensor)]
    for value in given:
        _check(function, value, dtypes, given[0])
    device = given[0].device if given else default_device()
    dtype = given[0].dtype if given else dtypes[0]
    return [
        value if isinstance(value, Tensor) else _convert(device, value, dtype) for value in values
    ]


def _check(function: str, value: Tensor, dtypes: Sequence[str], first: Tensor) -> None:
    value.check()
    if type(value) is not Tensor:
        raise InvalidArgumentError(
            f"{function}: {value} has a special memory layout: pass a plain copy of it"
        )
    if value.dtype not in dtypes:
        raise InvalidArgumentError(f"{function} computes with {'/'.join(dtypes)}, not {value}")
    if value.dtype != first.dtype:
        raise InvalidArgumentError(f"{function}: types differ: {first} and {value}")
    if value.device is not first.device:
        raise InvalidArgumentError(f"{function}: {first} and {value} are on two devices")


def _convert(device: Device, value: TensorLike, dtype: str) -> Tensor:
    if isinstance(value, int | float):
        return full(device, (), value, dtype)
    return tensor(value, dtype, device=device)


def full(device: Device, shape: Sequence[int], value: float, dtype: str = "float32") -> Tensor:
    """Create a tensor of ``shape`` filled with ``value``.

    Uses a kernel, because an upload would submit pending work. InvalidArgumentError if ``value``
    cannot be represented in ``dtype``.
    """
    bits = bits_of(value, dtype)
    result = empty(device, shape, dtype)
    dispatch(
        device,
        "fill",
        groups_for(result.size, 64),
        {"result": result},
        {"count": result.size, "bits": bits},
    )
    return result


def bits_of(value: float, dtype: str) -> int:
    """Return the 32 bits of ``value`` in ``dtype``; InvalidArgumentError if it does not fit."""
    try:
        packed = struct.pack("<" + FORMATS[dtype], value)
    except (struct.error, OverflowError):
        raise InvalidArgumentError(f"{shown(value)} is not a valid {dtype}") from None
    return int.from_bytes(packed, "little")
