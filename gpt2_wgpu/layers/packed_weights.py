"""Weights between Keras' shapes and the layout of ``nn``."""

from __future__ import annotations

import math
from array import array
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from gpt2_wgpu.nn import (
    Axis,
    LayerNorm,
    Linear,
    Matrix,
    Raw,
    fold_norm,
    linear,
    load_matrix,
    load_vector,
    round_up,
)
from gpt2_wgpu.tensors import Tensor, ops
from gpt2_wgpu.tensors.creation import tensor

T = TypeVar("T")


def padded_axis(size: int, groups: int = 1) -> Axis:
    """Return an axis of ``groups``, each padded to a multiple of eight."""
    return Axis(size, size // groups, round_up(size // groups, 8))


def pad_last_axis(x: Tensor) -> Tensor:
    """Return ``x`` with its last axis padded with zeros to a multiple of eight."""
    missing = -x.shape[-1] % 8
    if not missing:
        return x
    zeros = ops.broadcast_to(tensor(0.0, device=x.device), (*x.shape[:-1], missing))
    return ops.concat([x, zeros], axis=-1)


def pack_matrix(
    kernel: Tensor, dtype: str, out_axis: Axis, in_axis: Axis, *, transpose: bool = True
) -> Matrix:
    """Store ``kernel`` [in_features, out_features], or the reverse without ``transpose``."""
    loading = load_matrix(
        kernel.device, _raw(kernel), dtype,
        transpose=transpose, out_features=out_axis, in_features=in_axis,
    )  # fmt: skip
    return _finished(loading)


def pack_vector(values: Tensor, axis: Axis) -> Tensor:
    """Store a vector, padded."""
    return _finished(load_vector(values.device, _raw(values), axis=axis))


def pack_linear(
    kernel: Tensor,
    bias: Tensor,
    dtype: str,
    out_axis: Axis,
    in_axis: Axis,
    norm: LayerNorm | None = None,
) -> Linear:
    """Store a linear layer; ``norm``: the LayerNorm in front of it, to be folded into it."""
    weight = pack_matrix(kernel, dtype, out_axis, in_axis)
    stored = pack_vector(bias, out_axis)
    folded = None if norm is None else fold_norm(norm.weight, norm.bias, weight, stored)
    return Linear(weight, stored, folded)


def unpack_matrix(weight: Matrix, out_axis: Axis, in_axis: Axis) -> Tensor:
    """Return the kernel [in_features, out_features] of a stored matrix: its products with ones."""
    size, width = in_axis.size, weight.in_features
    ones = array("f", bytes(4 * size * width))
    for k in range(size):
        group, at = divmod(k, in_axis.group)
        ones[k * width + group * in_axis.padded + at] = 1.0
    device = weight.parts[0][1].device
    rows = tensor(memoryview(ones).cast("B").cast("f", (size, width)), device=device)
    return _unpadded(linear(rows, replace(weight, rounds_activations=False)), out_axis)


def unpack_vector(values: Tensor, axis: Axis) -> Tensor:
    """Return a stored vector without padding."""
    return _unpadded(values, axis)


def _unpadded(values: Tensor, axis: Axis) -> Tensor:
    outer = values.shape[:-1]
    kept = values[..., : axis.length]
    grouped = kept.view((*outer, axis.size // axis.group, axis.padded))
    return ops.reshape(grouped[..., : axis.group], (*outer, axis.size))


def _raw(values: Tensor) -> Raw:
    flat = values.view((math.prod(values.shape),))

    async def part(begin: int, end: int) -> Tensor:
        return ops.slice(flat, (begin,), (end - begin,))

    return Raw(part, "F32", values.shape)


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing, since its data are on the GPU."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise AssertionError("a conversion of weights on the GPU waited")
