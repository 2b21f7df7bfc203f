"""Attention in parts, for hooks: scores, weighted values, stored keys and values, heads alone.

Their results are those of the fused kernels (attention.py, `project_qkv`), up to rounding.
"""

from __future__ import annotations

from array import array

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.linear_layers import linear
from gpt2_wgpu.nn.matrix import Matrix
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.arrays import concat
from gpt2_wgpu.tensors.ops.elementwise import mul
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

LOWEST_SCORE = -9e8  # scores of positions that have no weight are lower


def attention_scores(
    queries: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the scores [B, H, T, S] of ``queries`` [B, T, H * D] over S positions of ``cache``.

    Arguments as of :func:`cached_attention`. A position after the query's has -3e38, a masked one
    -1e9. ShapeError for incompatible shapes.
    """
    batch, tokens, _ = _sizes("attention_scores", queries, cache, start, mask)
    result = empty(queries.device, (batch, cache.num_heads, tokens, cache.length))
    _dispatch(
        "attention_scores", queries, None, result, cache, layer, start, mask, scale, result.size
    )
    return result


def mix_values(pattern: Tensor, cache: KVCache, layer: int, start: Tensor) -> Tensor:
    """Return the values of ``layer``, weighted by ``pattern`` [B, H, T, S] → [B, T, H * D].

    Weights of positions after a query's own, ``start[b] + t``, are ignored. ShapeError for
    incompatible shapes, LimitError for too many positions.
    """
    batch, heads, tokens, _ = shape = pattern.shape if pattern.ndim == 4 else (0, 0, 0, 0)
    if shape != (cache.batch_size, cache.num_heads, tokens, cache.length):
        raise ShapeError(f"mix_values: pattern {pattern.shape} for a cache of shape {cache.shape}")
    if cache.length > pattern.device.capabilities.max_iterations:
        raise LimitError(
            f"mix_values: {pattern.device.info.name} cannot loop over {cache.length:,} positions"
        )
    result = empty(pattern.device, (batch, tokens, heads * cache.padded_dim))
    threads = result.size // 8
    _dispatch("attention_mix", result, pattern, result, cache, layer, start, None, 1.0, threads)
    return result


def store_keys_and_values(
    keys: Tensor, values: Tensor, cache: KVCache, layer: int, start: Tensor
) -> None:
    """Write ``keys`` and ``values`` [B, T, H, D padded] to ``layer`` of ``cache``.

    Those of token (b, t) get position ``start[b] + t``. ShapeError for incompatible shapes.
    """
    shape = (cache.batch_size, *keys.shape[1:2], cache.num_heads, cache.padded_dim)
    if keys.shape != shape or values.shape != shape or start.shape != shape[:1]:
        raise ShapeError(
            f"store_keys_and_values: keys {keys.shape}, values {values.shape} and start "
            f"{start.shape} for a cache of shape {cache.shape}"
        )
    with tidy("store keys and values"):
        x = concat([keys, values])
        dispatch(
            x.device,
            "write_cache",
            groups_for(x.size // 2, 64),
            {"x": x, "start": start, "cache": cache.layer(layer)},
            {
                "count": x.size // 2,
                "batch": cache.batch_size,
                "tokens_per_row": shape[1],
                "heads": cache.num_heads,
                "head_dim": cache.padded_dim,
                "capacity": cache.capacity,
                "rows": cache.allocated_rows,
            },
            variant={"cache": cache.variant},
        )


def project_heads(x: Tensor, weight: Matrix, heads: int) -> Tensor:
    """Return the linear layer ``weight`` of each head alone: x [B, T, H * D] → [B, T, H, N].

    Their sum over the heads is the layer's result, without a bias.
    """
    batch, tokens, width = x.shape
    own = array("f", [])
    for head in range(heads):
        own.extend(float(k // (width // heads) == head) for k in range(width))
    with tidy("project heads") as scope:
        mask = tensor(memoryview(own).cast("B").cast("f", (heads, width)), device=x.device)
        alone = mul(x.view((batch, tokens, 1, width)), mask)
        return scope.escape(linear(alone, weight))


def _sizes(
    name: str, queries: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
) -> tuple[int, int, int]:
    """Return the shape of ``queries``; ShapeError for incompatible shapes."""
    batch, tokens, width = queries.shape if queries.ndim == 3 else (0, 0, 0)
    expected = (cache.batch_size, cache.num_heads * cache.padded_dim)
    if (batch, width) != expected or start.shape != (batch,):
        raise ShapeError(
            f"{name}: queries {queries.shape} and start {start.shape} for a cache of shape "
            f"{cache.shape}"
        )
    if mask is not None and mask.shape != (batch, cache.capacity):
        raise ShapeError(f"{name}: mask {mask.shape}, not {(batch, cache.capacity)}")
    return batch, tokens, width


def _dispatch(
    kernel: str,
    queries: Tensor,
    pattern: Tensor | None,
    result: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    mask: Tensor | None,
    scale: float,
    threads: int,
) -> None:
    batch, tokens, _ = queries.shape
    bindings: dict[str, Binding] = {
        "query": queries,
        "keys": cache.keys(layer),
        "values": cache.values(layer),
        "start": start,
        "mask": start if mask is None else mask,  # bound, but not read without HAS_MASK
        "result": result,
    }
    if pattern is not None:
        bindings |= {"pattern": pattern, "query": pattern}  # the query is bound, but not read
    dispatch(
        result.device,
        kernel,
        groups_for(threads, 64),
        bindings,
        {
            "queries": batch * tokens * cache.num_heads,
            "tokens_per_row": tokens,
            "heads": cache.num_heads,
            "capacity": cache.capacity,
            "keys": cache.length,
            "causal": 1,
            "split_length": cache.length,
            "scale": scale,
        },
        variant={"cache": cache.variant},
        constants={"HAS_MASK": int(mask is not None), "HEAD_DIM8": cache.padded_dim // 8},
    )
