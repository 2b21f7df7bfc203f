"""Indexing of tensors by NumPy's basic indices, new and repeated axes, and tensors of ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.ops.arrays import copy_strided
from gpt2_wgpu.tensors.ops.operands import ANY_DTYPE, TensorLike, full, operands
from gpt2_wgpu.tensors.ops.strides import (
    as_integer,
    broadcast,
    broadcast_strides,
    integer,
    integers,
    row_major,
)
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.tensors.tidying import tidy


def ones_like(x: TensorLike) -> Tensor:
    """Return a tensor of ones with x's shape and dtype."""
    with tidy("ones_like") as scope:
        (x,) = operands("ones_like", x, dtypes=ANY_DTYPE)
        return scope.escape(full(x.device, x.shape, 1, x.dtype))


def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """Return a view of ``x`` with a new axis of size 1.

    Args:
        x: tensor.
        axis: index of the new axis in the result.

    Raises:
        InvalidArgumentError: ``axis`` is not in [-ndim - 1, ndim].
    """
    with tidy("expand_dims") as scope:
        (x,) = operands("expand_dims", x, dtypes=ANY_DTYPE)
        place, axes = integer("expand_dims", "axis", axis), x.ndim + 1
        if not -axes <= place < axes:
            raise InvalidArgumentError(
                f"expand_dims: axis {place} is not in [{-axes}, {axes - 1}], for shape {x.shape}"
            )
        place %= axes
        result: Tensor = x.view((*x.shape[:place], 1, *x.shape[place:]))
        return scope.escape(result)


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """Return ``x`` repeated to ``shape`` by NumPy's broadcasting, a copy.

    Raises:
        ShapeError: ``x`` does not broadcast to ``shape``.
    """
    sizes = integers("broadcast_to", "shape", shape)
    with tidy("broadcast_to") as scope:
        (x,) = operands("broadcast_to", x, dtypes=ANY_DTYPE)
        if min(sizes, default=0) < 0 or broadcast("broadcast_to", x.shape, sizes) != sizes:
            raise ShapeError(f"broadcast_to: shape {x.shape} does not broadcast to {sizes}")
        return scope.escape(copy_strided(x, sizes, broadcast_strides(x.shape, sizes)))


def get_item(x: Tensor, key: Any) -> Tensor:
    """Return ``x[key]``, a copy, by NumPy's basic indexing.

    Args:
        x: tensor.
        key: integers, slices of positive steps, ``...`` and None.

    Raises:
        ShapeError: an index is out of range, or there are too many.
        InvalidArgumentError: another kind of index.
    """
    with tidy("x[...]") as scope:
        (x,) = operands("x[...]", x, dtypes=ANY_DTYPE)
        start, shape, strides = 0, list[int](), list[int]()
        axes = zip(x.shape, row_major(x.shape), strict=True)
        for item in _expanded(key, x.ndim):
            if item is None:
                shape.append(1)
                strides.append(0)
                continue
            size, stride = next(axes)
            if isinstance(item, slice):
                first, last, step = _ends(item, size)
                if step < 1:
                    raise InvalidArgumentError(f"x[...]: the step of {item} is not positive")
                shape.append(len(range(first, last, step)))
                strides.append(stride * step)
            else:
                first = _place(item, size, x.shape)
            start += first * stride
        return scope.escape(copy_strided(x, tuple(shape), strides, start))


def _expanded(key: Any, ndim: int) -> list[Any]:
    """Return one item for each axis of x, and None for each new axis."""
    items = list(key) if isinstance(key, tuple) else [key]
    given = sum(item is not None and item is not ... for item in items)
    dots = [place for place, item in enumerate(items) if isinstance(item, EllipsisType)]
    if given > ndim or len(dots) > 1:
        raise ShapeError(f"x[...]: {shown(key)} has too many indices for {ndim} axes")
    place = dots[0] if dots else len(items)
    return [*items[:place], *[slice(None)] * (ndim - given), *items[place + 1 :]]


def _ends(item: slice, size: int) -> tuple[int, int, int]:
    """Return start, stop and step of a slice of an axis; the step 0 stays one."""
    given = (item.start, item.stop, item.step)
    if any(each is not None and as_integer(each) is None for each in given):
        raise InvalidArgumentError(f"x[...]: {shown(item)} is not a slice of integers")
    return (0, 0, 0) if item.step == 0 else item.indices(size)


def _place(item: Any, size: int, shape: tuple[int, ...]) -> int:
    """Return an integer index as a non-negative one."""
    if (place := as_integer(item)) is None:
        raise InvalidArgumentError(
            f"x[...] takes integers, slices, ... and None, not {shown(item)}: see ops.gather"
        )
    if not -size <= place < size:
        raise ShapeError(f"x[...]: index {place} is out of range for an axis of {size} in {shape}")
    return place % size
