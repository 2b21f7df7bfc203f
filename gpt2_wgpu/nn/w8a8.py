"""W8A8 products: activations rounded to int8 in blocks of 32, times q8 or q4 weights.

Rounding adds an error like that of q8 weights. It is faster where a product is bound by arithmetic
and loads, not by memory: see ``Capabilities.prefers_w8a8``. Elsewhere kernels read quantised
weights as floats. The choice depends on device and weights only, so that a token has the same bits
alone and in a batch. The GEMV rounds its token itself; for a GEMM a separate kernel rounds them.
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
_GROUP_OUTPUTS = 64  # outputs of a workgroup
_MAX_IN_FEATURES = 384 * BLOCK  # of a rounded token that fits every workgroup's memory


def possible(in_features: int) -> bool:
    """Return whether ``in_features`` are whole blocks and fit into workgroup memory."""
    return in_features % BLOCK == 0 and in_features <= _MAX_IN_FEATURES


@dataclass(frozen=True)
class QuantizedActivations:
    """Tokens as int8: ``levels`` [M, K / 4], four in a word, ``scales`` [M, K / 32]."""

    levels: Tensor
    scales: Tensor


def quantize_activations(
    device: Device,
    source: Mapping[str, Binding],
    variant: Mapping[str, str],
    constants: Mapping[str, int],
    params: Mapping[str, int | float],
) -> QuantizedActivations:
    """Round x, after its norm; ``source``, ``variant``, ``constants``: how a kernel reads x."""
    tokens, in_features = int(params["tokens"]), 8 * int(params["in_features8"])
    result = QuantizedActivations(
        empty(device, (tokens, in_features // 4), "uint32"),
        empty(device, (tokens, in_features // BLOCK)),
    )
    dispatch(
        device,
        "quantize_activations_cpu",
        groups_for(tokens, 1),
        {**source, "levels": result.levels, "scales": result.scales},
        params,
        variant=variant,
        constants=constants,
    )
    return result


def choose(
    device: Device, tokens: int, out_features: int, in_features: int
) -> tuple[str, Grid, dict[str, int]]:
    """Return kernel, grid and constants."""
    groups = -(-out_features // _GROUP_OUTPUTS)
    if tokens > 8 and device.capabilities.shares_loads:
        return "linear_w8a8_gemm_subgroups_cpu", (-(-out_features // 32), -(-tokens // 16), 1), {}
    if tokens == 1:
        masked = device.capabilities.emulates_packed_dot
        kernel = "linear_w8a8_gemv_masked_cpu" if masked else "linear_w8a8_gemv_cpu"
        return kernel, (groups, 1, 1), {"BLOCKS": in_features // BLOCK}
    quads = 1 if tokens <= 4 else 2
    return "linear_w8a8_gemm_cpu", (groups, -(-tokens // (4 * quads)), 1), {"QUADS": quads}
