"""Sums, means and extremes along one or several axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.arrays import transpose
from gpt2_wgpu.tensors.ops.elementwise import SCALARS, div
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.operands import TensorLike, full, operands
from gpt2_wgpu.tensors.ops.strides import Shape, axis_of
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

Axes = int | Sequence[int] | None
_OPERATIONS = {"sum": 0, "max": 1, "min": 2}  # numbers of shaders/reduce_axis.wgsl
_SHARE = 64  # elements that a thread reduces


def sum(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum of the elements along ``axis``.

    Elements are added in groups of 64, so that rounding errors grow with the logarithm of their
    number.

    Args:
        x: float32, int32 or uint32 (both wrap on overflow) tensor.
        axis: an axis, several, or None for all.
        keepdims: whether the axes stay, with size 1.

    Returns:
        A tensor of x's dtype; 0 for no elements.

    Raises:
        InvalidArgumentError: an axis does not exist or is given twice, or the dtype is another.
    """
    return _reduce("sum", x, axis, keepdims)


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean along ``axis``, of float32 only; NaN for no elements. Otherwise as :func:`sum`."""
    with tidy("mean") as scope:
        (x,) = operands("mean", x)
        count = math.prod(x.shape[each] for each in _axes("mean", axis, x.shape))
        total = _reduce("sum", x, axis, keepdims)
        return scope.escape(div(total, count))


def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element along ``axis``; NaN if one is NaN, as in NumPy. Otherwise as :func:`sum`.

    Raises:
        ShapeError: there is no element.
    """
    return _reduce("max", x, axis, keepdims)


def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element along ``axis``; NaN if one is NaN, as in NumPy. Otherwise as :func:`max`."""
    return _reduce("min", x, axis, keepdims)


def _reduce(name: str, x: TensorLike, axis: Axes, keepdims: bool) -> Tensor:
    with tidy(name) as scope:
        (x,) = operands(name, x, dtypes=tuple(SCALARS))
        axes = _axes(name, axis, x.shape)
        shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
        if not keepdims:
            shape = tuple(size for i, size in enumerate(x.shape) if i not in axes)
        if not axes:
            result: Tensor = x.view(shape)
            return scope.escape(result)
        if axes != tuple(range(axes[0], axes[-1] + 1)):
            others = [i for i in range(x.ndim) if i not in axes]
            x = transpose(x, (*others, *axes))
            axes = tuple(range(len(others), x.ndim))
        outer, inner = math.prod(x.shape[: axes[0]]), math.prod(x.shape[axes[-1] + 1 :])
        columns = math.prod(x.shape[axes[0] : axes[-1] + 1])
        if not columns:
            if name != "sum":
                raise ShapeError(f"{name}: no elements along axes {axes} of shape {x.shape}")
            return scope.escape(full(x.device, shape, 0, x.dtype))
        while True:
            parts = -(-columns // _SHARE)
            result = empty(x.device, (outer, parts, inner), x.dtype)
            dispatch(
                x.device,
                "reduce_axis",
                groups_for(result.size, 64),
                {"x": x, "result": result},
                {"count": result.size, "columns": columns, "parts": parts, "inner": inner},
                variant={"scalar": SCALARS[x.dtype]},
                constants={"OPERATION": _OPERATIONS[name], "IS_FLOAT": int(x.dtype == "float32")},
            )
            x, columns = result, parts
            if columns == 1:
                return scope.escape(result.view(shape))


def _axes(function: str, axis: Axes, shape: Shape) -> tuple[int, ...]:
    """Return the axes in ascending order."""
    if axis is None:
        return tuple(range(len(shape)))
    given: Sequence[int] = [axis] if not isinstance(axis, list | tuple) else axis  # type: ignore
    axes = sorted(axis_of(function, each, shape) for each in given)
    if len(set(axes)) != len(axes):
        raise InvalidArgumentError(f"{function}: axis {shown(axis)} names an axis twice")
    return tuple(axes)
