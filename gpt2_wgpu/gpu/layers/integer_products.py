"""Products in integers: activations rounded to int8 in blocks of 32, against q8 or q4 weights.

Rounding x costs a small dispatch and an error like that of q8 weights; then one instruction
(``dot4I8Packed``) multiplies four pairs. Worth it for a single row where arithmetic and loads
limit, not memory: see ``Capabilities.integer_products``. Elsewhere kernels read quantised weights
as floats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpt2_wgpu.gpu.commands import Grid, dispatch
from gpt2_wgpu.gpu.layers.weights import QUANTIZED
from gpt2_wgpu.gpu.ops.grids import groups_for
from gpt2_wgpu.gpu.tensor import Tensor, empty

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.layers.weights import Matrix

BLOCK = 32
_WORDS = 12  # of a rounded block: 32 int8, scale, sum, padding to three vec4


def suits(x: Tensor, weight: Matrix) -> bool:
    """Whether x Wᵀ is to be computed so: one row, and lines of whole blocks."""
    capabilities = x.device.capabilities
    return (
        capabilities.integer_products
        and x.size == x.shape[-1]
        and weight.dtype in QUANTIZED
        and weight.depth % BLOCK == 0
        and weight.depth // BLOCK < capabilities.max_iterations
    )


def rounded(x: Tensor) -> Tensor:
    """``x`` [..., K] as blocks of int8 → uint32 [rows, K / 32, 12], see quantize_rows.wgsl."""
    rows, blocks = math.prod(x.shape[:-1]), x.shape[-1] // BLOCK
    result = empty(x.device, (rows, blocks, _WORDS), "uint32")
    dispatch(
        x.device,
        "quantize_rows",
        groups_for(rows * blocks, 64),
        {"x": x, "result": result},
        {"blocks": rows * blocks},
    )
    return result


def choose(rows: int, columns: int) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants for rounded rows."""
    return "linear_dot", (-(-columns // 64), rows, 1), {}
