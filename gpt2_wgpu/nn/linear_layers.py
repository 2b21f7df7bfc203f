"""Linear layers with stored weights: y = x Wᵀ + b, with fused norm, activation and residual."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import w8a8
from gpt2_wgpu.nn.attention import AttentionPartials
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.linear_choice import choose_kernel, fuses_norm, gemv_step
from gpt2_wgpu.nn.matrix import Matrix, rounds_activations
from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.arrays import concat, copy_block, slice
from gpt2_wgpu.tensors.ops.elementwise import ACTIVATIONS
from gpt2_wgpu.tensors.ops.normalization import layer_norm
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy


@dataclass(frozen=True)
class Norm:
    """LayerNorm before a linear layer, fused into it for few tokens.

    ``weight``, ``bias`` [K padded], of which the first ``features`` count; ``folded`` [2, N]: the
    result of :func:`fold_norm` for them and the linear layer's weights.
    """

    weight: Tensor
    bias: Tensor
    folded: Tensor
    features: int
    epsilon: float


def fold_norm(gain: Tensor, shift: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """Return the constants of a LayerNorm folded into a linear layer (include/folded_norm.wgsl).

    ``gain``, ``shift`` [K] of the norm, ``weight`` [N, K], ``bias`` [N] → [2, N]: W shift + bias
    and W gain, computed with the stored (rounded) weights.
    """
    result = empty(weight.parts[0][1].device, (2, weight.out_features), kind="weights")
    with tidy("fold norm"):
        vectors = [values.view((1, weight.in_features)) for values in (shift, gain)]
        # Not activations, so they must not be rounded to int8.
        both = linear(concat(vectors), replace(weight, rounds_activations=False))
        copy_block(both, result, (both.size,), (1,), 0, (1,), 0)
        if bias is not None:
            whole = slice(both, (0, 0), (1, weight.out_features)) + slice(
                bias, (0,), (weight.out_features,)
            )
            copy_block(whole, result, (weight.out_features,), (1,), 0, (1,), 0)
    return result


def linear(
    x: Tensor | AttentionPartials,
    weight: Matrix,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    activation: str = "linear",
    residual: Tensor | None = None,
) -> Tensor:
    """Linear layer: activation(norm(x) Wᵀ + bias) + residual.

    ``x`` [..., K], ``weight`` [N, K], ``bias`` [N or longer], ``residual`` [..., N] → [..., N].
    ShapeError for incompatible shapes.
    """
    shape = (*x.shape[:-1], weight.out_features)
    check_in_features("linear", x, weight)
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"linear: residual {residual.shape} for a result {shape}")
    if bias is not None and bias.size < weight.out_features:
        raise ShapeError(f"linear: bias {bias.shape} for weight {weight.shape}")
    result = empty(x.device, shape)
    unused = x if isinstance(x, Tensor) else x.sums
    dispatch_linear(
        x,
        weight,
        bias,
        norm,
        "plain",
        # An unused binding must still be bound; constants disable its reads.
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
    """GPT-2's ``c_attn``: returns queries, and writes keys and values to ``cache``.

    ``x`` [B, T, K], ``weight`` [3 * H * D, K] → queries [B, T, H * D]; token (b, t) is written at
    position ``start[b] + t``. ShapeError for incompatible shapes.
    """
    check_in_features("project_qkv", x, weight)
    width = cache.num_heads * cache.padded_dim
    if x.ndim != 3 or x.shape[0] != cache.batch_size or weight.out_features != 3 * width:
        raise ShapeError(
            f"project_qkv: x {x.shape} and weight {weight.shape} for a cache of shape {cache.shape}"
        )
    if any(first % 2 for first, _ in weight.parts):
        raise LimitError("project_qkv: weights parted between two outputs that are stored together")
    queries = empty(x.device, (*x.shape[:2], width))
    dispatch_linear(
        x,
        weight,
        bias,
        norm,
        "qkv",
        {"start": start, "result": queries, "cache": cache.layer(layer)},
        {
            "batch": cache.allocated_rows,
            "tokens_per_row": x.shape[1],
            "heads": cache.num_heads,
            "head_dim": cache.padded_dim,
            "capacity": cache.capacity,
        },
        {},
        cache=cache.variant,
    )
    return queries


def check_in_features(name: str, x: Tensor | AttentionPartials, weight: Matrix) -> None:
    """Raise ShapeError unless the last axes of ``x`` and ``weight`` are equal."""
    if not x.shape or x.shape[-1] != weight.in_features:
        raise ShapeError(
            f"{name}: x {x.shape} does not fit weight {weight.shape}: the last axes must be equal"
        )


def dispatch_linear(
    x: Tensor | AttentionPartials,
    weight: Matrix,
    bias: Tensor | None,
    norm: Norm | None,
    store: str,
    bindings: dict[str, Binding],
    params: dict[str, int],
    constants: dict[str, int],
    **variants: str,
) -> None:
    """Dispatch each part of the weights, with the kernel chosen for device and size."""
    tokens = math.prod(x.shape[:-1])
    in_features8 = weight.in_features // 8
    step, steps = gemv_step(weight)
    splits = x.splits if isinstance(x, AttentionPartials) else 0
    is_w8a8 = rounds_activations(x.device, weight)
    with tidy("linear"):
        if (
            norm is not None
            and isinstance(x, Tensor)
            and not fuses_norm(x.device, tokens)
            and not is_w8a8  # normalises each token once anyway, to round it
        ):
            x = layer_norm(x, norm.weight, norm.bias, norm.epsilon, columns=norm.features)
            norm = None
        if store != "qkv":
            constants = constants | {"HAS_BIAS": int(bias is not None or norm is not None)}
        source, variant, fused = _source(x, norm)
        sizes: dict[str, int | float] = {
            "tokens": tokens,
            "in_features8": in_features8,
            "norm_features": 0 if norm is None else norm.features,
            "epsilon": 0.0 if norm is None else norm.epsilon,
        }
        if is_w8a8 and tokens > 1:
            rounded = w8a8.quantize_activations(x.device, source, variant, fused, sizes)
            source, variant, fused = {"x": rounded.levels, "scales": rounded.scales}, {}, {}
        source["bias"] = source["x"] if bias is None else bias
        if norm is not None:
            source["bias"] = norm.folded
        for first, part in weight.parts:
            out_features = part.shape[0]
            if is_w8a8:
                kernel, grid, chosen = w8a8.choose(
                    x.device, tokens, out_features, weight.in_features
                )
            else:
                kernel, grid, chosen = choose_kernel(
                    x.device, tokens, out_features, in_features8, steps, splits, norm is not None
                )
            dispatch(
                x.device,
                kernel,
                grid,
                {"weights": part, **source, **bindings},
                {
                    **sizes,
                    "out_features": out_features,
                    "first_out_feature": first,
                    "total_out_features": weight.out_features,
                    **params,
                },
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
    x: Tensor | AttentionPartials, norm: Norm | None
) -> tuple[dict[str, Binding], dict[str, str], dict[str, int]]:
    """Bindings, variant and constants by which the kernels read x."""
    if isinstance(x, AttentionPartials):
        constants = {"SPLITS": x.splits, "HEADS": x.heads}
        return {"x": x.sums, "partial_stats": x.stats}, {"input": "partials"}, constants
    gain = x if norm is None else norm.weight  # bound but not read without NORM
    return {"x": x, "gain": gain}, {"input": "plain"}, {"NORM": int(norm is not None)}
