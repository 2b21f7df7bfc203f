"""Matrix multiplication."""

from __future__ import annotations

import math

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.arrays import copy_strided
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.operands import TensorLike, operands
from gpt2_wgpu.tensors.ops.strides import Shape, broadcast, broadcast_strides
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

_TILE = 16  # of shaders/matmul.wgsl


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """Matrix product by NumPy's rules, float32 with float32 accumulation.

    Args:
        a: [..., M, K], or [K].
        b: [..., K, N], or [K]. Leading axes broadcast.

    Returns:
        [..., M, N]; without M or N for a one-dimensional operand.

    Raises:
        ShapeError: the shapes are incompatible.
        LimitError: K is too large for a CPU adapter with a limit on loop iterations.
    """
    with tidy("matmul") as scope:
        a, b = operands("matmul", a, b)
        if not a.shape or not b.shape:
            raise ShapeError(f"matmul: {a.shape} and {b.shape}: a scalar is not a matrix, use mul")
        *a_batch, rows, inner = (1, *a.shape) if a.ndim == 1 else a.shape
        *b_batch, b_inner, columns = (*b.shape, 1) if b.ndim == 1 else b.shape
        if inner != b_inner:
            raise ShapeError(f"matmul: {a.shape} and {b.shape}: {inner} columns, {b_inner} rows")
        try:
            batch = broadcast("matmul", tuple(a_batch), tuple(b_batch))
        except ShapeError:
            raise ShapeError(
                f"matmul: leading axes of {a.shape} and {b.shape} do not broadcast"
            ) from None
        shape = (*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))
        result = empty(a.device, shape)
        batches = math.prod(batch)
        if math.prod(b_batch) == 1 and math.prod(a_batch) == batches:
            rows, batches = rows * batches, 1  # shared b: stack the rows of all a
            a_step = b_step = 0
        else:
            a, a_step = _matrices(a, tuple(a_batch), batch, rows * inner)
            b, b_step = _matrices(b, tuple(b_batch), batch, inner * columns)
        cpu = a.device.capabilities.prefers_no_barriers
        _check_inner(a, inner, inner // 4 + 3 if cpu else 17 * -(-inner // _TILE))
        tiles = batches * -(-rows // _TILE) * -(-columns // _TILE)
        dispatch(
            a.device,
            "matmul_cpu" if cpu else "matmul",
            groups_for(result.size, 64) if cpu else groups_for(tiles),
            {"a": a, "b": b, "result": result},
            {
                "batches": batches,
                "rows": rows,
                "inner": inner,
                "columns": columns,
                "a_step": a_step,
                "b_step": b_step,
            },
        )
        return scope.escape(result)


def _check_inner(a: Tensor, inner: int, iterations: int) -> None:
    most = a.device.capabilities.max_iterations
    if iterations > most:
        raise LimitError(
            f"matmul: sums of {inner:,} products are too long for {a.device.info.name}, which ends "
            f"a loop after {most:,} iterations: split them or use a GPU"
        )


def _matrices(x: Tensor, own: Shape, batch: Shape, elements: int) -> tuple[Tensor, int]:
    """Return x's matrices of ``elements`` elements for each of ``batch``, and their stride."""
    if math.prod(own) == 1:
        return x, 0
    if math.prod(own) != math.prod(batch):
        strides = broadcast_strides((*own, elements), (*batch, elements))
        x = copy_strided(x, (*batch, elements), strides)
    return x, elements
