"""Linear layers with stored weights: y = x Wᵀ + b, and what may be fused into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import w8a8
from gpt2_wgpu.nn.attention import SplitAttention
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.matrix import Matrix, rounds_activations
from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.arrays import concat, copy_block, slice
from gpt2_wgpu.tensors.ops.elementwise import ACTIVATIONS
from gpt2_wgpu.tensors.ops.normalization import layer_norm
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import Grid
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

_READY = 1008  # vec4s of a row that linear_gemv_cpu.wgsl has room for, in 16 KiB with the moments
GEMV_ROWS = 8  # up to here every few rows read the weights; beyond, tiles share them


@dataclass(frozen=True)
class Norm:
    """A LayerNorm in front of a linear layer, fused into it where rows are few.

    ``weight``, ``bias`` [D padded], of which ``columns`` count; ``folded`` [2, N]: what
    :func:`fold_norm` made of them and the linear layer's weights.
    """

    weight: Tensor
    bias: Tensor
    folded: Tensor
    columns: int
    epsilon: float


def fold_norm(gain: Tensor, shift: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """The constants of LayerNorm and linear layer in one (shaders/include/folded_norm.wgsl).

    ``gain``, ``shift`` [D]: the norm's; ``weight`` [N, D], ``bias`` [N] → [2, N]: W shift + bias
    and W gain, of the weights as they are stored.
    """
    result = empty(weight.parts[0][1].device, (2, weight.rows), kind="weights")
    with tidy("fold norm"):
        rows = [values.view((1, weight.depth)) for values in (shift, gain)]
        # These are not activations: not to be rounded.
        both = linear(concat(rows), replace(weight, rounds_activations=False))
        copy_block(both, result, (both.size,), (1,), 0, (1,), 0)
        if bias is not None:
            whole = slice(both, (0, 0), (1, weight.rows)) + slice(bias, (0,), (weight.rows,))
            copy_block(whole, result, (weight.rows,), (1,), 0, (1,), 0)
    return result


def linear(
    x: Tensor | SplitAttention,
    weight: Matrix,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    activation: str = "linear",
    residual: Tensor | None = None,
) -> Tensor:
    """activation(norm(x) Wᵀ + bias) + residual.

    ``x`` [..., K], ``weight`` [N, K], ``bias`` [N or longer], ``residual`` [..., N] → [..., N].
    Raises ``ShapeError``.
    """
    shape = (*x.shape[:-1], weight.rows)
    check_depth("linear", x, weight)
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"linear: residual {residual.shape} for a result {shape}")
    if bias is not None and bias.size < weight.rows:
        raise ShapeError(f"linear: bias {bias.shape} for weight [{weight.rows}, {weight.depth}]")
    result = empty(x.device, shape)
    unused = x if isinstance(x, Tensor) else x.sums
    dispatch_linear(
        x,
        weight,
        bias,
        norm,
        "plain",
        # An unused binding still has to be bound; the constants say that it is not read.
        {"residual": unused if residual is None else residual, "result": result},
        {},
        {
            "ACTIVATION": ACTIVATIONS[activation],
            "HAS_RESIDUAL": int(residual is not None),
        },
    )
    return result


def project_qkv(
    x: Tensor,
    weight: Matrix,
    bias: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    norm: Norm | None = None,
) -> Tensor:
    """GPT-2's ``c_attn``: queries are returned, keys and values written into ``cache``.

    ``x`` [B, T, K], ``weight`` [3 * H * D, K] → queries [B, T, H * D]; row (b, t) is written at
    position ``start[b] + t``. Raises ``ShapeError``.
    """
    check_depth("project_qkv", x, weight)
    width = cache.num_heads * cache.padded_dim
    if x.ndim != 3 or x.shape[0] != cache.batch_size or weight.rows != 3 * width:
        raise ShapeError(
            f"project_qkv: x {x.shape} and weight [{weight.rows}, {weight.depth}] for a cache "
            f"of shape {cache.shape}"
        )
    if any(first % 2 for first, _ in weight.parts):
        raise LimitError("project_qkv: weights parted between two columns that are stored together")
    queries = empty(x.device, (*x.shape[:2], width))
    dispatch_linear(
        x,
        weight,
        bias,
        norm,
        "qkv",
        {"start": start, "result": queries, "cache": cache.layer(layer)},
        {
            "batch": cache.batch_size,
            "tokens": x.shape[1],
            "heads": cache.num_heads,
            "head_dim": cache.padded_dim,
            "capacity": cache.capacity,
        },
        {},
        cache=cache.variant,
    )
    return queries


def check_depth(name: str, x: Tensor | SplitAttention, weight: Matrix) -> None:
    if not x.shape or x.shape[-1] != weight.depth:
        raise ShapeError(
            f"{name}: x {x.shape} does not fit weight [{weight.rows}, {weight.depth}]: the last "
            "axes must be equal"
        )


def dispatch_linear(
    x: Tensor | SplitAttention,
    weight: Matrix,
    bias: Tensor | None,
    norm: Norm | None,
    store: str,
    bindings: dict[str, Binding],
    params: dict[str, int],
    constants: dict[str, int],
    **variants: str,
) -> None:
    """One dispatch for each part of the weights, by the kernel that suits device and size."""
    rows = math.prod(x.shape[:-1])
    depth8 = weight.depth // 8
    step, steps = _step(weight)
    splits = x.splits if isinstance(x, SplitAttention) else 0
    in_integers = rounds_activations(x.device, weight)
    with tidy("linear"):
        if (
            norm is not None
            and isinstance(x, Tensor)
            and rows > GEMV_ROWS
            and not in_integers  # rounds what the norm gives, and has to have it once anyway
        ):
            # In a tile of many rows the norm is a small part: better once than by every tile.
            x = layer_norm(x, norm.weight, norm.bias, norm.epsilon, columns=norm.columns)
            norm = None
        if store != "qkv":
            constants = constants | {"HAS_BIAS": int(bias is not None or norm is not None)}
        source, variant, fused = _source(x, norm)
        sizes: dict[str, int | float] = {
            "rows": rows,
            "depth8": depth8,
            "width": 0 if norm is None else norm.columns,
            "epsilon": 0.0 if norm is None else norm.epsilon,
        }
        if in_integers and rows > 1:
            rounded = w8a8.quantize_activations(x.device, source, variant, fused, sizes)
            source, variant, fused = {"x": rounded.levels, "scales": rounded.scales}, {}, {}
        source["bias"] = source["x"] if bias is None else bias
        if norm is not None:
            source["bias"] = norm.folded
        for first, part in weight.parts:
            columns = part.shape[0]
            if in_integers:
                kernel, grid, chosen = w8a8.choose(rows, columns, weight.depth)
            else:
                kernel, grid, chosen = _choose(
                    x.device, rows, columns, depth8, steps, splits, norm is not None
                )
            dispatch(
                x.device,
                kernel,
                grid,
                {"weights": part, **source, **bindings},
                {**sizes, "columns": columns, "first": first, "total": weight.rows, **params},
                variant={
                    "weight": weight.variant,
                    "step": step,
                    "store": store,
                    **variant,
                    **variants,
                },
                constants=constants | fused | chosen,
            )


def _source(
    x: Tensor | SplitAttention, norm: Norm | None
) -> tuple[dict[str, Binding], dict[str, str], dict[str, int]]:
    """How the kernels get x: bindings, variant and constants."""
    if isinstance(x, SplitAttention):
        constants = {"SPLITS": x.splits, "HEADS": x.heads}
        return {"x": x.sums, "parts": x.parts}, {"input": "parts"}, constants
    gain = x if norm is None else norm.weight  # bound, but not read without NORM
    return {"x": x, "gain": gain}, {"input": "plain"}, {"NORM": int(norm is not None)}


def _choose(
    device: Device,
    rows: int,
    columns: int,
    depth8: int,
    steps: int,
    splits: int,
    normed: bool,
) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants for a product of this size.

    ``steps``: of a line, as the GEMV reads it; ``splits``: of x, 0 if it is whole; ``normed``: a
    LayerNorm comes first.

    What decides besides the device is how often one thread loops, over all loops: for each group of
    eight weights as counted here, in the GEMV a LANES-th as often.
    """
    capabilities = device.capabilities
    ready = 2 * depth8 if normed or splits else 1
    if capabilities.barrier_free and rows == 1 and ready <= _READY:
        # Of a row that is made ready a thread does a 16th, and in each place its parts twice.
        rounds = depth8 + (depth8 // 16 + 1) * (1 + 2 * splits) + 16
        if rounds < capabilities.max_iterations:
            return "linear_gemv_cpu", (-(-columns // 64), 1, 1), {"READY": ready}
    quads = 1 if rows <= 4 else 2
    inner = max(1, 2 * splits)  # a row's moments, or its parts twice
    rounds = 1 + quads * (1 + 4 * inner)
    if capabilities.barrier_free and rounds * (depth8 + 3) < capabilities.max_iterations:
        return "linear_gemm_cpu", (-(-columns // 64), -(-rows // (4 * quads)), 1), {"QUADS": quads}
    if rows > GEMV_ROWS and (3 + splits) * (depth8 + 5) < capabilities.max_iterations:
        return "linear_gemm", (-(-columns // 64), -(-rows // 64), 1), {}
    shared = min(GEMV_ROWS, rows)  # rows that share one reading of the weights
    # Lanes that each have something to do, and no more than keep a large GPU's memory busy.
    wanted = max(8, min(depth8 // 2, steps, 100_000 // columns, 128))
    lanes = 1 << (wanted.bit_length() - 1)
    threads = max(64, lanes)
    groups = -(-columns // (4 * threads // lanes))
    wide = min(groups, 65535)
    grid = (wide, -(-rows // shared), -(-groups // wide))
    return "linear_gemv", grid, {"ROWS": shared, "LANES": lanes, "WORKGROUP": threads}


def _step(weight: Matrix) -> tuple[str, int]:
    """How linear_gemv reads ``weight``, 16 bytes at a time where lines are whole such steps; and
    how many steps a line has."""
    step = WEIGHT_FORMATS[weight.dtype].gemv_step
    if step and weight.depth % step == 0:
        return weight.variant, weight.depth // step
    return "eight", weight.depth // 8
