"""Computations with shapes, strides and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown

KERNEL_AXES = 6  # of shaders/include/axes.wgsl

Shape = tuple[int, ...]


def row_major(shape: Sequence[int]) -> list[int]:
    """Return the row-major strides of a shape, in elements."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def broadcast(function: str, a: Shape, b: Shape) -> Shape:
    """Return the broadcast shape by NumPy's rules; ShapeError if there is none."""
    axes = max(len(a), len(b))
    pairs = list(zip((1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b, strict=True))
    if any(left != right and 1 not in (left, right) for left, right in pairs):
        raise ShapeError(f"{function}: shapes {a} and {b} do not broadcast")
    return tuple(right if left == 1 else left for left, right in pairs)


def broadcast_strides(shape: Shape, to: Shape) -> list[int]:
    """Return the strides that read ``shape`` broadcast to ``to``; 0 for repeated axes."""
    missing = len(to) - len(shape)
    steps = zip(shape, row_major(shape), strict=True)
    return [0] * missing + [0 if size == 1 else step for size, step in steps]


def merge_axes(function: str, shape: Shape, *layouts: Sequence[int]) -> list[list[int]]:
    """Return equivalent ``[sizes, strides, ...]`` with six axes, for the kernels.

    Axes of size 1 are dropped, and adjacent axes that are contiguous in every layout are merged.
    ShapeError if more than six remain.
    """
    merged: list[list[int]] = []  # per axis: size, then its stride in each layout
    for size, *strides in zip(shape, *layouts, strict=True):
        if size == 1:
            continue
        if merged and all(
            outer == size * inner for outer, inner in zip(merged[-1][1:], strides, strict=True)
        ):
            merged[-1] = [merged[-1][0] * size, *strides]
        else:
            merged.append([size, *strides])
    if len(merged) > KERNEL_AXES:
        raise ShapeError(f"{function}: shape {shape} needs more than {KERNEL_AXES} axes")
    filler = [[1] + [0] * len(layouts)] * (KERNEL_AXES - len(merged))
    return [list(column) for column in zip(*filler, *merged, strict=True)]


def numbered(names: Sequence[str], columns: Sequence[Sequence[int]]) -> dict[str, int]:
    """Return kernel parameters ``name0`` ... ``name5`` for each list of :func:`merge_axes`."""
    return {
        f"{name}{axis}": value
        for name, column in zip(names, columns, strict=True)
        for axis, value in enumerate(column)
    }


def as_integer(value: Any) -> int | None:
    """Return an integer, also of NumPy; None for another value and for booleans."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def integers(function: str, name: str, values: Sequence[int]) -> Shape:
    """Return ``values`` as a tuple of ints; InvalidArgumentError if they are not integers."""
    try:
        found = [as_integer(value) for value in values]
    except TypeError:
        found = [None]
    if None in found:
        raise InvalidArgumentError(
            f"{function}: {name} must be a sequence of integers, not {shown(values)}"
        )
    return tuple(value for value in found if value is not None)


def integer(function: str, name: str, value: int) -> int:
    """Return ``value`` as an int; InvalidArgumentError if it is not an integer."""
    if (found := as_integer(value)) is None:
        raise InvalidArgumentError(f"{function}: {name} must be an integer, not {shown(value)}")
    return found


def axis_of(function: str, axis: int, shape: Shape) -> int:
    """Return ``axis`` as a non-negative index; InvalidArgumentError if it does not exist."""
    axis = integer(function, "axis", axis)
    if not -len(shape) <= axis < len(shape):
        raise InvalidArgumentError(f"{function}: no axis {axis} in shape {shape}")
    return axis % len(shape)


def split_at(shape: Shape, axis: int) -> tuple[int, int, int]:
    """Return the array's shape as [outer, size, inner], split at ``axis``."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
