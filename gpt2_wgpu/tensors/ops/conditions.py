"""Comparisons, logical operations on bool tensors, selection by a condition, and casts."""

from __future__ import annotations

import math

from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.elementwise import SCALARS
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.operands import ANY_DTYPE, TensorLike, full, operands
from gpt2_wgpu.tensors.ops.strides import broadcast, broadcast_strides, merge_axes, numbered
from gpt2_wgpu.tensors.tensor import Tensor, check_dtype, empty
from gpt2_wgpu.tensors.tidying import tidy

_SCALARS = {**SCALARS, "bool": "u32"}
# Numbers of shaders/compare.wgsl.
_COMPARISONS = {
    "equal": 0,
    "not_equal": 1,
    "less": 2,
    "less_equal": 3,
    "greater": 4,
    "greater_equal": 5,
}
_CASTS = {"float32": 0, "int32": 1, "uint32": 2, "bool": 3}  # numbers of shaders/cast.wgsl


def equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a == b`` elementwise, with NumPy's broadcasting.

    Args:
        a: tensor, or a value that ``tensor`` accepts, which takes the dtype of ``b``.
        b: likewise, of the same dtype.

    Returns:
        A bool tensor.

    Raises:
        ShapeError: the shapes do not broadcast.
        InvalidArgumentError: the dtypes differ.
    """
    return _compare("equal", a, b)


def not_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a != b``; as :func:`equal`."""
    return _compare("not_equal", a, b)


def less(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a < b``; as :func:`equal`."""
    return _compare("less", a, b)


def less_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a <= b``; as :func:`equal`."""
    return _compare("less_equal", a, b)


def greater(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a > b``; as :func:`equal`."""
    return _compare("greater", a, b)


def greater_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a >= b``; as :func:`equal`."""
    return _compare("greater_equal", a, b)


def _compare(name: str, a: TensorLike, b: TensorLike) -> Tensor:
    with tidy(name) as scope:
        a, b = operands(name, a, b, dtypes=tuple(_SCALARS))
        shape = broadcast(name, a.shape, b.shape)
        layouts = broadcast_strides(a.shape, shape), broadcast_strides(b.shape, shape)
        count = math.prod(shape)
        result = empty(a.device, shape, "bool")
        dispatch(
            a.device,
            "compare",
            groups_for(count, 64),
            {"a": a, "b": b, "result": result},
            {"count": count, **numbered(("size", "a", "b"), merge_axes(name, shape, *layouts))},
            variant={"scalar": _SCALARS[a.dtype]},
            constants={"OPERATION": _COMPARISONS[name]},
        )
        return scope.escape(result)


def logical_and(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a and b`` of bool tensors, elementwise, with broadcasting."""
    with tidy("logical_and") as scope:
        a, b = operands("logical_and", a, b, dtypes=("bool",))
        return scope.escape(where(a, b, full(a.device, (), 0, "bool")))


def logical_or(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a or b`` of bool tensors, elementwise, with broadcasting."""
    with tidy("logical_or") as scope:
        a, b = operands("logical_or", a, b, dtypes=("bool",))
        return scope.escape(where(a, full(a.device, (), 1, "bool"), b))


def logical_not(x: TensorLike) -> Tensor:
    """Return ``not x`` of a bool tensor, elementwise."""
    with tidy("logical_not") as scope:
        (x,) = operands("logical_not", x, dtypes=("bool",))
        return scope.escape(equal(x, full(x.device, (), 0, "bool")))


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """Return the elements of ``a`` where ``condition`` is true, else those of ``b``.

    Args:
        condition: bool tensor or values.
        a: tensor, or a value that ``tensor`` accepts, which takes the dtype of ``b``.
        b: likewise, of the same dtype; all three broadcast.

    Raises:
        ShapeError: the shapes do not broadcast.
        InvalidArgumentError: the condition is not bool, or the dtypes differ.
    """
    with tidy("where") as scope:
        a, b = operands("where", a, b, dtypes=ANY_DTYPE)
        (condition,) = operands("where", condition, dtypes=("bool",))
        shape = broadcast("where", broadcast("where", a.shape, b.shape), condition.shape)
        layouts = [broadcast_strides(each.shape, shape) for each in (condition, a, b)]
        count = math.prod(shape)
        result = empty(a.device, shape, a.dtype)
        dispatch(
            a.device,
            "select",
            groups_for(count, 64),
            {"condition": condition, "a": a, "b": b, "result": result},
            {
                "count": count,
                **numbered(("size", "c", "a", "b"), merge_axes("where", shape, *layouts)),
            },
        )
        return scope.escape(result)


def cast(x: TensorLike, dtype: str) -> Tensor:
    """Return ``x`` as another dtype; a new tensor even if x has it already.

    Args:
        x: tensor.
        dtype: "float32", "int32" or "uint32" (floats are rounded towards zero; those outside of
            its range become the nearest float32 in it, at most 2147483520 or 4294967040), or
            "bool" (``x != 0``).

    Raises:
        InvalidArgumentError: the dtype is unknown.
    """
    check_dtype(dtype)
    with tidy("cast") as scope:
        (x,) = operands("cast", x, dtypes=ANY_DTYPE)
        result = empty(x.device, x.shape, dtype)
        dispatch(
            x.device,
            "cast",
            groups_for(x.size, 64),
            {"x": x, "result": result},
            {"count": x.size},
            variant={"scalar": _SCALARS[x.dtype]},
            constants={"TO": _CASTS[dtype]},
        )
        return scope.escape(result)
