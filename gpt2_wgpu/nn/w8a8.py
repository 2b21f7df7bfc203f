"""W8A8 products: activations rounded to int8 in blocks of 32, against q8 or q4 weights.

That adds an error like that of q8 weights, and is faster where arithmetic and loads limit, not
memory: see ``Capabilities.integer_products``. Elsewhere kernels read quantised weights as floats.
Which of the two it is depends on device and weights only: a row gets the same bits alone and among
others. A single row is rounded by the kernel that multiplies it, several by one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import Grid

BLOCK = 32
_COLUMNS = 64  # of a workgroup
_DEPTH = 384 * BLOCK  # of a row that, rounded, is sure to fit a workgroup's memory


def possible(depth: int) -> bool:
    """Whether rows of so many elements are whole blocks, and not too many."""
    return depth % BLOCK == 0 and depth <= _DEPTH


@dataclass(frozen=True)
class RoundedRows:
    """Rows as int8: ``levels`` [rows, depth / 4], four in a word, ``scales`` [rows, depth / 32]."""

    levels: Tensor
    scales: Tensor


def quantize_activations(
    device: Device,
    source: Mapping[str, Binding],
    variant: Mapping[str, str],
    constants: Mapping[str, int],
    params: Mapping[str, int | float],
) -> RoundedRows:
    """Round x, behind its norm; ``source``, ``variant``, ``constants``: how a kernel gets it."""
    rows, depth = int(params["rows"]), 8 * int(params["depth8"])
    result = RoundedRows(
        empty(device, (rows, depth // 4), "uint32"), empty(device, (rows, depth // BLOCK))
    )
    dispatch(
        device,
        "quantize_activations_cpu",
        groups_for(rows, 1),
        {**source, "levels": result.levels, "scales": result.scales},
        params,
        variant=variant,
        constants=constants,
    )
    return result


def choose(rows: int, columns: int, depth: int) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants."""
    groups = -(-columns // _COLUMNS)
    if rows == 1:
        return "linear_w8a8_gemv_cpu", (groups, 1, 1), {"DEPTH32": depth // BLOCK}
    quads = 1 if rows <= 4 else 2
    return "linear_w8a8_gemm_cpu", (groups, -(-rows // (4 * quads)), 1), {"QUADS": quads}
