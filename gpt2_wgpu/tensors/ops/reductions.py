"""Reductions along one axis: softmax, log_softmax, argmax, top_k."""

from __future__ import annotations

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for, iterations, use_cpu_kernel
from gpt2_wgpu.tensors.ops.operands import TensorLike, operands
from gpt2_wgpu.tensors.ops.strides import axis_of, integer, split_at
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

CHUNKS = 128  # of a row, at most: shaders/top_k_cpu.wgsl
_SMALLEST_CHUNK = 16  # columns


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Softmax along ``axis``, ``exp(x) / sum(exp(x))``; stable for large values.

    Mask with a large negative number instead of -infinity: a row of -infinity gives NaN.

    Args:
        x: float32 tensor.
        axis: axis of the sum.

    Returns:
        A tensor of x's shape.
    """
    return _softmax("softmax", x, axis, logarithm=False)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Logarithm of the softmax along ``axis``; stable for small probabilities."""
    return _softmax("log_softmax", x, axis, logarithm=True)


def _softmax(name: str, x: TensorLike, axis: int, *, logarithm: bool) -> Tensor:
    with tidy(name) as scope:
        (x,) = operands(name, x)
        outer, columns, inner = split_at(x.shape, axis_of(name, axis, x.shape))
        rows = outer * inner
        result = empty(x.device, x.shape)
        cpu = use_cpu_kernel(x.device, name, columns, passes=3)
        dispatch(
            x.device,
            "softmax_cpu" if cpu else "softmax",
            groups_for(rows, 8 if cpu else 1),
            {"x": x, "result": result},
            {"rows": rows, "columns": columns, "inner": inner},
            constants={"LOGARITHM": int(logarithm)},
        )
        return scope.escape(result)


def argmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Index of the largest element along ``axis``; the first of equal ones.

    Args:
        x: float32 tensor; NaN is the largest, as in NumPy.
        axis: axis of the comparison.

    Returns:
        An int32 tensor of x's shape without ``axis``.

    Raises:
        ShapeError: the axis is empty.
    """
    with tidy("argmax") as scope:
        (x,) = operands("argmax", x)
        axis = axis_of("argmax", axis, x.shape)
        if x.shape[axis] == 0:
            raise ShapeError(f"argmax: axis {axis} of shape {x.shape} is empty")
        _, indices = _largest(x, axis, 1)
        return scope.escape(indices.view(x.shape[:axis] + x.shape[axis + 1 :]))


def top_k(x: TensorLike, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest elements along the last axis and their indices, in descending order.

    Rows are read once; each element found costs about a hundredth of that again.

    Args:
        x: [..., N], float32; NaN is the largest, as in ``torch.topk`` and NumPy's order.
        k: from 1 to N.

    Returns:
        Values [..., k], float32, and indices [..., k], int32; equal values in order of index.

    Raises:
        InvalidArgumentError: ``k`` is out of range.
    """
    k = integer("top_k", "k", k)
    with tidy("top_k") as scope:
        (x,) = operands("top_k", x)
        axis = axis_of("top_k", -1, x.shape)
        if not 1 <= k <= x.shape[axis]:
            raise InvalidArgumentError(
                f"top_k: k = {k} for shape {x.shape}: use 1 to {x.shape[axis]}"
            )
        values, indices = _largest(x, axis, k)
        return scope.escape((values.view((*x.shape[:-1], k)), indices.view((*x.shape[:-1], k))))


def _largest(x: Tensor, axis: int, k: int) -> tuple[Tensor, Tensor]:
    """Return values and indices of the k largest along ``axis``, [rows, k] each."""
    outer, columns, inner = split_at(x.shape, axis)
    rows = outer * inner
    values = empty(x.device, (rows, k))
    indices = empty(x.device, (rows, k), "int32")
    most = x.device.capabilities.max_iterations
    chunk = max(-(-columns // CHUNKS), _SMALLEST_CHUNK) if k > 1 else max(columns, 1)
    chunks = -(-columns // chunk)
    rounds = (most - columns - chunks + chunk) // (1 + chunks + chunk)
    cpu = use_cpu_kernel(x.device, "top_k", columns, passes=1) and rounds > 0
    if not cpu:
        rounds = most // iterations(columns, True)
    for first in range(0, k, rounds):
        dispatch(
            x.device,
            "top_k_cpu" if cpu else "top_k",
            groups_for(rows, 8 if cpu else 1),
            {"x": x, "values": values, "indices": indices},
            {
                "rows": rows,
                "columns": columns,
                "inner": inner,
                "k": k,
                "first": first,
                "end": min(k, first + rounds),
                "chunk": chunk,
            },
        )
    return values, indices
