"""The same elements in another order or selection: reshape, slice, concat, transpose, gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.grids import groups_for
from gpt2_wgpu.tensors.ops.operands import ANY_DTYPE, TensorLike, bits_of, operands
from gpt2_wgpu.tensors.ops.strides import (
    Shape,
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
    """``x`` under another shape of as many elements; one size may be -1. Shares x's memory.

    Raises ``ShapeError`` if the number of elements differs.
    """
    wanted = integers("reshape", "shape", [shape] if isinstance(shape, int) else shape)
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
    """The block of ``x`` that begins at ``start``, ``size`` long (-1: to the end of that axis).

    ``x``, ``start`` and ``size`` have as many axes → a tensor of shape ``size``. Raises
    ``ShapeError`` if the block is not inside ``x``.
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
        raise ShapeError(f"slice: start {start} with size {size} is no block of shape {x.shape}")


def slice_update(x: TensorLike, start: Sequence[int], updates: TensorLike) -> Tensor:
    """A copy of ``x`` with the block that begins at ``start`` replaced by ``updates``.

    ``x``, ``start`` and ``updates`` have as many axes → a tensor of x's shape. Raises
    ``ShapeError`` if the block is not inside ``x`` (Keras on JAX would move it in silence).
    """
    start = integers("slice_update", "start", start)
    with tidy("slice_update") as scope:
        x, updates = operands("slice_update", x, updates, dtypes=ANY_DTYPE)
        if not len(start) == updates.ndim == x.ndim or not _is_inside(
            x.shape, start, updates.shape
        ):
            raise ShapeError(
                f"slice_update: updates {updates.shape} at {start} are no block of {x.shape}"
            )
        strides = row_major(x.shape)
        result = copy_strided(x, x.shape, strides)
        copy_block(
            updates, result, updates.shape, row_major(updates.shape), 0,
            strides, _place(start, strides),
        )  # fmt: skip
        return scope.escape(result)


def concat(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """``tensors`` joined along ``axis``; all other sizes agree. Raises ``ShapeError``."""
    if isinstance(tensors, Tensor) or not len(tensors):
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
    """``x`` with its axes in the order ``axes`` (default: reversed).

    Raises ``InvalidArgumentError`` unless ``axes`` names each axis once.
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
    """The lines of ``x`` along ``axis`` whose numbers are ``indices`` (NumPy's ``take``).

    ``indices``: an int32 or uint32 tensor or nested lists of integers →
    ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]``. Lists are checked: an index outside
    0 .. size - 1 raises ``InvalidArgumentError``. Numbers in a tensor are known only to the GPU:
    one outside that range gives NaN (float32) or 0 (integers).
    """
    with tidy("gather") as scope:
        (x,) = operands("gather", x, dtypes=ANY_DTYPE)
        axis = axis_of("gather", axis, x.shape)
        _, lines, inner = split_at(x.shape, axis)
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
                "lines": lines,
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
        try:
            number = index(item)
        except TypeError:
            raise InvalidArgumentError(f"gather: index {shown(item)} is no integer") from None
        if not 0 <= number < shape[axis]:
            raise InvalidArgumentError(
                f"gather: index {number} is outside axis {axis} of shape {shape}: "
                f"use 0 to {shape[axis] - 1}"
            )


def copy_strided(x: Tensor, shape: Shape, strides: Sequence[int], start: int = 0) -> Tensor:
    """A contiguous tensor of ``shape``; a step along an axis is so many elements of x's memory."""
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
    """Copy a block of ``shape`` from x to ``result``; both by strides and start, in elements."""
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
