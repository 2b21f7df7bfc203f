"""Linear layers with stored weights: y = x Wᵀ + b, and what may be fused into it."""

from __future__ import annotations

import math

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import Binding, Grid, dispatch
from gpt2_wgpu.gpu.layers import integer_products
from gpt2_wgpu.gpu.layers.kv_cache import KVCache
from gpt2_wgpu.gpu.layers.weights import Matrix
from gpt2_wgpu.gpu.ops.elementwise import ACTIVATIONS
from gpt2_wgpu.gpu.tensor import Tensor, empty

GEMV_ROWS = 8  # up to here every row reads the weights; beyond, tiles share them


def linear(
    x: Tensor,
    weight: Matrix,
    bias: Tensor | None = None,
    *,
    activation: str = "linear",
    residual: Tensor | None = None,
) -> Tensor:
    """activation(x Wᵀ + bias) + residual.

    ``x`` [..., K], ``weight`` [N, K], ``bias`` [N or longer], ``residual`` [..., N] → [..., N].
    Raises ``ShapeError``.
    """
    shape = (*x.shape[:-1], weight.rows)
    _check_depth("linear", x, weight)
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"linear: residual {residual.shape} for a result {shape}")
    if bias is not None and bias.size < weight.rows:
        raise ShapeError(f"linear: bias {bias.shape} for weight [{weight.rows}, {weight.depth}]")
    result = empty(x.device, shape)
    _run(
        x,
        weight,
        "plain",
        # An unused binding still has to be bound; the constants say that it is not read.
        {
            "bias": x if bias is None else bias,
            "residual": x if residual is None else residual,
            "result": result,
        },
        {"stride": weight.rows},
        {
            "ACTIVATION": ACTIVATIONS[activation],
            "HAS_BIAS": int(bias is not None),
            "HAS_RESIDUAL": int(residual is not None),
        },
    )
    return result


def project_qkv(
    x: Tensor, weight: Matrix, bias: Tensor, cache: KVCache, layer: int, start: Tensor
) -> Tensor:
    """GPT-2's ``c_attn``: queries are returned, keys and values written into ``cache``.

    ``x`` [B, T, K], ``weight`` [3 * H * D, K] → queries [B, T, H * D]; row (b, t) is written at
    position ``start[b] + t``. Raises ``ShapeError``.
    """
    _check_depth("project_qkv", x, weight)
    width = cache.num_heads * cache.padded_dim
    if x.ndim != 3 or x.shape[0] != cache.batch_size or weight.rows != 3 * width:
        raise ShapeError(
            f"project_qkv: x {x.shape} and weight [{weight.rows}, {weight.depth}] for a cache "
            f"of shape {cache.shape}"
        )
    queries = empty(x.device, (*x.shape[:2], width))
    _run(
        x,
        weight,
        "qkv",
        {"bias": bias, "start": start, "result": queries, "cache": cache.layer(layer)},
        {
            "batch": cache.batch_size,
            "tokens": x.shape[1],
            "heads": cache.num_heads,
            "head_dim": cache.padded_dim,
            "capacity": cache.capacity,
        },
        {},
    )
    return queries


def _check_depth(name: str, x: Tensor, weight: Matrix) -> None:
    if not x.shape or x.shape[-1] != weight.depth:
        raise ShapeError(
            f"{name}: x {x.shape} does not fit weight [{weight.rows}, {weight.depth}]: the last "
            "axes must be equal"
        )


def _run(
    x: Tensor,
    weight: Matrix,
    store: str,
    bindings: dict[str, Binding],
    params: dict[str, int],
    constants: dict[str, int],
) -> None:
    """One dispatch for each part of the weights, by the kernel that suits device and size."""
    rows = math.prod(x.shape[:-1])
    in_integers = integer_products.suits(x, weight)
    factor = integer_products.rounded(x) if in_integers else x
    for first, part in weight.parts:
        columns = part.shape[0]
        if in_integers:
            kernel, grid, chosen = integer_products.choose(rows, columns)
        else:
            kernel, grid, chosen = _choose(x, rows, columns, weight.depth // 8)
        dispatch(
            x.device,
            kernel,
            grid,
            {"x": factor, "weights": part, **bindings},
            {"rows": rows, "columns": columns, "depth8": weight.depth // 8, "first": first}
            | params,
            variant={"weight": weight.variant, "store": store},
            constants=constants | chosen,
        )
    if in_integers:
        factor.dispose()


def _choose(x: Tensor, rows: int, columns: int, depth8: int) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants for a product of this size.

    What decides besides the device is how often one thread loops: once for each group of eight
    weights without barriers, some 13 times in a tile, a LANES-th as often in the GEMV.
    """
    capabilities = x.device.capabilities
    if capabilities.barrier_free and depth8 < capabilities.max_iterations:
        if rows == 1:
            return "linear_rows", (-(-columns // 64), 1, 1), {}
        return "linear_block", (-(-columns // 128), -(-rows // 4), 1), {}
    if rows > GEMV_ROWS and 13 * (depth8 + 1) < capabilities.max_iterations:
        return "linear_gemm", (-(-columns // 64), -(-rows // 64), 1), {}
    shared = 1 if rows == 1 else 4  # rows that share one reading of the weights
    lanes = max(shared, min(32, 1 << (depth8.bit_length() - 1)))
    groups = -(-columns // (256 // lanes))
    wide = min(groups, 65535)
    grid = (wide, -(-rows // shared), -(-groups // wide))
    return "linear_gemv", grid, {"ROWS": shared, "LANES": lanes}
