"""Rearrangement of elements: reshape, slice, slice_update, concat, transpose, gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.operands import ANY_DTYPE, TensorLike, bits_of, operands
from gpt2_wgpu.tensors.ops.strides import (
    Shape,
    as_integer,
    axis_of,
    integers,
    merge_axes,
    numbered,
    row_major,
    split_at,
)
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy


def reshape(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """Return a view of ``x`` with another shape.

    Args:
        x: tensor.
        shape: sizes; one may be -1.

    Returns:
        A tensor that shares x's memory.

    Raises:
        ShapeError: the number of elements differs.
    """
    sizes: Any = [shape] if hasattr(shape, "__index__") else shape
    wanted = integers("reshape", "shape", sizes)
    with tidy("reshape") as scope:
        (x,) = operands("reshape", x, dtypes=ANY_DTYPE)
        known = math.prod(size for size in wanted if size != -1)
        if wanted.count(-1) == 1 and known > 0:
            wanted = tuple(x.size // known if size == -1 else size for size in wanted)
        if min(wanted, default=0) < 0 or math.prod(wanted) != x.size:
            raise ShapeError(f"reshape: {x.shape} ({x.size} elements) does not fit {shape}")
        result: Tensor = x.view(wanted)
        return scope.escape(result)


def slice(x: TensorLike, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return a contiguous block of ``x``.

    Args:
        x: tensor.
        start: first index along each axis.
        size: size along each axis; -1: to the end.

    Returns:
        A tensor of shape ``size``.

    Raises:
        ShapeError: the block is not inside ``x``.
    """
    start, size = integers("slice", "start", start), integers("slice", "size", size)
    with tidy("slice") as scope:
        (x,) = operands("slice", x, dtypes=ANY_DTYPE)
        if len(start) == len(size) == x.ndim:
            ends = zip(x.shape, start, size, strict=True)
            shape = tuple(whole - at if length == -1 else length for whole, at, length in ends)
            if _is_inside(x.shape, start, shape):
                strides = row_major(x.shape)
                return scope.escape(copy_strided(x, shape, strides, _place(start, strides)))
        raise ShapeError(f"slice: start {start} with size {size} is outside of shape {x.shape}")


def slice_update(x: TensorLike, start: Sequence[int], updates: TensorLike) -> Tensor:
    """Return a copy of ``x`` with a block replaced by ``updates``.

    Args:
        x: tensor.
        start: first index of the block along each axis.
        updates: the block, with as many axes as ``x``.

    Returns:
        A tensor of x's shape.

    Raises:
        ShapeError: the block is not inside ``x`` (Keras on JAX silently moves it).
    """
    start = integers("slice_update", "start", start)
    with tidy("slice_update") as scope:
        x, updates = operands("slice_update", x, updates, dtypes=ANY_DTYPE)
        if not len(start) == updates.ndim == x.ndim or not _is_inside(
            x.shape, start, updates.shape
        ):
            raise ShapeError(
                f"slice_update: updates {updates.shape} at {start} do not fit into {x.shape}"
            )
        strides = row_major(x.shape)
        result = copy_strided(x, x.shape, strides)
        copy_block(
            updates, result, updates.shape, row_major(updates.shape), 0,
            strides, _place(start, strides),
        )  # fmt: skip
        return scope.escape(result)


def concat(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Concatenate tensors along ``axis``.

    Args:
        tensors: non-empty list of tensors with equal sizes along the other axes.
        axis: axis of the concatenation.

    Returns:
        A new tensor.

    Raises:
        ShapeError: sizes along another axis differ.
        InvalidArgumentError: the list is empty or ``axis`` does not exist.
    """
    if not isinstance(tensors, Sequence) or not tensors:
        raise InvalidArgumentError(
            f"concat takes a non-empty list of tensors, not {shown(tensors)}"
        )
    with tidy("concat") as scope:
        parts = operands("concat", *tensors, dtypes=ANY_DTYPE)
        first = parts[0].shape
        axis = axis_of("concat", axis, first)
        before, after = first[:axis], first[axis + 1 :]
        for part in parts:
            if part.ndim != len(first) or (*part.shape[:axis], *part.shape[axis + 1 :]) != (
                *before,
                *after,
            ):
                raise ShapeError(
                    f"concat: shapes {first} and {part.shape} differ beside axis {axis}"
                )
        total = sum(part.shape[axis] for part in parts)
        result = empty(parts[0].device, (*before, total, *after), parts[0].dtype)
        strides = row_major(result.shape)
        begin = 0
        for part in parts:
            copy_block(
                part, result, part.shape, row_major(part.shape), 0, strides, begin * strides[axis]
            )
            begin += part.shape[axis]
        return scope.escape(result)


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """Permute the axes of ``x``.

    Args:
        x: tensor.
        axes: order of the axes; default: reversed.

    Returns:
        A new tensor.

    Raises:
        InvalidArgumentError: ``axes`` is not a permutation of x's axes.
    """
    with tidy("transpose") as scope:
        (x,) = operands("transpose", x, dtypes=ANY_DTYPE)
        given = range(x.ndim)[::-1] if axes is None else integers("transpose", "axes", axes)
        order = [axis_of("transpose", axis, x.shape) for axis in given]
        if sorted(order) != list(range(x.ndim)):
            raise InvalidArgumentError(
                f"transpose: axes {axes} do not name each axis of shape {x.shape} once"
            )
        strides = row_major(x.shape)
        result = copy_strided(
            x, tuple(x.shape[axis] for axis in order), [strides[axis] for axis in order]
        )
        return scope.escape(result)


def gather(x: TensorLike, indices: TensorLike, axis: int = 0) -> Tensor:
    """Select slices of ``x`` along ``axis`` by index (NumPy's ``take``).

    Args:
        x: tensor.
        indices: int32 or uint32 tensor, or nested lists of integers, from 0 to size - 1. Out of
            range, an index in a list raises; one in a tensor, which only the GPU reads, gives NaN
            (float32) or 0 (integers).
        axis: axis of the indices.

    Returns:
        A tensor of shape ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]``.

    Raises:
        InvalidArgumentError: an index in a list is out of range or not an integer.
    """
    with tidy("gather") as scope:
        (x,) = operands("gather", x, dtypes=ANY_DTYPE)
        axis = axis_of("gather", axis, x.shape)
        _, rows, inner = split_at(x.shape, axis)
        if not isinstance(indices, Tensor):
            _check_indices(indices, axis, x.shape)
            indices = tensor(indices, "int32", device=x.device)
        (indices,) = operands("gather", indices, dtypes=("int32", "uint32"))
        result = empty(x.device, x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)
        dispatch(
            x.device,
            "gather",
            groups_for(result.size, 64),
            {"x": x, "indices": indices, "result": result},
            {
                "count": result.size,
                "rows": rows,
                "picks": indices.size,
                "inner": inner,
                "missing": bits_of(math.nan, x.dtype) if x.dtype == "float32" else 0,
            },
        )
        return scope.escape(result)


def _check_indices(indices: Any, axis: int, shape: Shape) -> None:
    pending = [indices.tolist() if hasattr(indices, "tolist") else indices]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(item)
            continue
        if (number := as_integer(item)) is None:
            raise InvalidArgumentError(f"gather: index {shown(item)} is not an integer")
        if not 0 <= number < shape[axis]:
            raise InvalidArgumentError(
                f"gather: index {number} is outside axis {axis} of shape {shape}: "
                f"use 0 to {shape[axis] - 1}"
            )


def copy_strided(x: Tensor, shape: Shape, strides: Sequence[int], start: int = 0) -> Tensor:
    """Copy elements of x, at ``strides`` from ``start``, to a contiguous tensor of ``shape``."""
    result = empty(x.device, shape, x.dtype)
    copy_block(x, result, shape, strides, start, row_major(shape), 0)
    return result


def copy_block(
    x: Tensor,
    result: Tensor,
    shape: Shape,
    from_strides: Sequence[int],
    from_start: int,
    to_strides: Sequence[int],
    to_start: int,
) -> None:
    """Copy a block of ``shape`` from x to ``result``; strides and starts are in elements."""
    axes = merge_axes("copy", shape, from_strides, to_strides)
    count = math.prod(shape)
    dispatch(
        x.device,
        "strided_copy",
        groups_for(count, 64),
        {"x": x, "result": result},
        {
            "count": count,
            "from_start": from_start,
            "to_start": to_start,
            **numbered(("size", "from", "to"), axes),
        },
    )


def _is_inside(whole: Shape, start: Shape, size: Shape) -> bool:
    axes = zip(whole, start, size, strict=True)
    return all(at >= 0 and length >= 0 and at + length <= limit for limit, at, length in axes)


def _place(coordinates: Shape, strides: Sequence[int]) -> int:
    return sum(at * step for at, step in zip(coordinates, strides, strict=True))
