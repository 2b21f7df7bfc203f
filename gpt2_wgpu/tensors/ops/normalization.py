"""Layer normalization."""

from __future__ import annotations

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for, use_cpu_kernel
from gpt2_wgpu.tensors.ops.operands import TensorLike, operands
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy


def layer_norm(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike,
    epsilon: float = 1e-5,
    *,
    columns: int | None = None,
) -> Tensor:
    """Layer normalization over the last axis (Ba et al. 2016), with biased variance as in GPT-2.

    Args:
        x: [..., D].
        weight: [D].
        bias: [D].
        epsilon: added to the variance.
        columns: number of elements to normalize; the others of D are padding and become zero.

    Returns:
        [..., D].

    Raises:
        ShapeError: the shapes are incompatible.
    """
    with tidy("layer_norm") as scope:
        x, weight, bias = operands("layer_norm", x, weight, bias)
        stride = x.shape[-1] if x.shape else 0
        count = stride if columns is None else columns
        if not x.shape or weight.shape != (stride,) or bias.shape != (stride,):
            raise ShapeError(
                f"layer_norm: x {x.shape}, weight {weight.shape}, bias {bias.shape}: "
                "weight and bias must be [D] for x [..., D]"
            )
        if not min(1, stride) <= count <= stride:
            raise ShapeError(f"layer_norm: {count} columns of x {x.shape}: use 1 to {stride}")
        result = empty(x.device, x.shape)
        rows = x.size // stride if stride else 0
        cpu = use_cpu_kernel(x.device, "layer_norm", stride, passes=4)
        dispatch(
            x.device,
            "layer_norm_cpu" if cpu else "layer_norm",
            groups_for(rows, 8 if cpu else 1),
            {"x": x, "weight": weight, "bias": bias, "result": result},
            {"rows": rows, "columns": count, "stride": stride, "epsilon": epsilon},
        )
        return scope.escape(result)
