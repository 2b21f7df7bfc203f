"""Products in integers: activations rounded to int8 in blocks of 32, against q8 or q4 weights.

One instruction (``dot4I8Packed``) multiplies four pairs. That adds an error like that of q8
weights, and is worth it for a single row where arithmetic and loads limit, not memory: see
``Capabilities.integer_products``. Elsewhere kernels read quantised weights as floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2_wgpu.gpu.commands import Grid
from gpt2_wgpu.gpu.layers.weights import QUANTIZED
from gpt2_wgpu.gpu.tensor import Tensor

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.layers.attention import SplitAttention
    from gpt2_wgpu.gpu.layers.weights import Matrix

BLOCK = 32
_COLUMNS = 64  # of a workgroup
_DEPTH = 384 * BLOCK  # of a row that, rounded, is sure to fit a workgroup's memory


def suits(x: Tensor | SplitAttention, weight: Matrix) -> bool:
    """Whether x Wᵀ is to be computed so: one row, and lines of whole blocks."""
    capabilities = x.device.capabilities
    return (
        capabilities.integer_products
        and isinstance(x, Tensor)
        and x.size == x.shape[-1]
        and weight.dtype in QUANTIZED
        and weight.depth % BLOCK == 0
        and weight.depth <= _DEPTH
    )


def choose(columns: int, depth: int) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants for a row that :func:`suits`."""
    return "linear_dot", (-(-columns // _COLUMNS), 1, 1), {"DEPTH32": depth // BLOCK}
