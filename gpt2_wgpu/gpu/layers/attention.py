"""Attention over a key/value cache, fused into one kernel."""

from __future__ import annotations

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.gpu.commands import dispatch
from gpt2_wgpu.gpu.layers.kv_cache import KVCache
from gpt2_wgpu.gpu.ops.grids import groups_for
from gpt2_wgpu.gpu.tensor import Tensor, empty

_ROWS_WIDTH = 128  # largest head that the barrier-free kernel keeps in registers
_WIDEST = 512


def cached_attention(
    queries: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Causal attention of ``queries`` over what ``cache`` holds for ``layer``.

    ``queries`` [B, T, H * D], ``start`` [B] uint32: query (b, t) stands at position
    ``start[b] + t`` and sees positions up to its own. ``mask`` [B, capacity] uint32, 0 = hidden.
    → [B, T, H * D]. Raises ``ShapeError``, ``LimitError`` for heads wider than 512.
    """
    batch, tokens, width = queries.shape
    heads, dim = cache.num_heads, cache.padded_dim
    if (batch, width) != (cache.batch_size, heads * dim) or start.shape != (batch,):
        raise ShapeError(
            f"cached_attention: queries {queries.shape} and start {start.shape} for a cache of "
            f"shape {cache.shape}"
        )
    if mask is not None and mask.shape != (batch, cache.capacity):
        raise ShapeError(f"cached_attention: mask {mask.shape}, not {(batch, cache.capacity)}")
    if dim > _WIDEST:
        raise LimitError(f"cached_attention: heads of {dim} exceed {_WIDEST}")
    capabilities = queries.device.capabilities
    by_rows = (
        capabilities.barrier_free
        and dim <= _ROWS_WIDTH
        and (cache.length + 1) * (dim // 2 + 1) < capabilities.max_iterations
    )
    chunks = -(-cache.length // 128)
    if not by_rows and chunks * (dim // 4 + dim + 16) > capabilities.max_iterations:
        raise LimitError(
            f"cached_attention: {queries.device.info.name} cannot loop over {cache.length:,} "
            "positions: use a shorter cache or a GPU"
        )
    result = empty(queries.device, queries.shape)
    count = batch * tokens * heads
    dispatch(
        queries.device,
        "attention_rows" if by_rows else "attention",
        groups_for(count, 8 if by_rows else 1),
        {
            "query": queries,
            "keys": cache.keys(layer),
            "values": cache.values(layer),
            "start": start,
            "mask": start if mask is None else mask,  # bound, but not read without HAS_MASK
            "result": result,
        },
        {
            "queries": count,
            "tokens": tokens,
            "heads": heads,
            "width4": dim // 4,
            "capacity": cache.capacity,
            "keys": cache.length,
            "causal": 1,
            "scale": scale,
        },
        constants={"HAS_MASK": int(mask is not None)},
    )
    return result
