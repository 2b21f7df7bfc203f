"""Attention of layers: in order, over another sequence, and with any mask."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.attention_weights import AttentionWeights
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.nn import (
    KVCache,
    Norm,
    attend,
    cached_attention,
    linear,
    round_up,
    rounds_activations,
    store_keys_and_values,
)
from gpt2_wgpu.tensors import Tensor, ops, tensor
from gpt2_wgpu.tensors.ops.operands import full
from gpt2_wgpu.validation import integer

HIDDEN = -1e9  # score of a hidden key, as in shaders/attention.wgsl


def attend_in_order(
    x: Tensor,
    weights: AttentionWeights,
    cache: KVCache | None,
    index: Any,
    mask: Tensor | None,
    norm: Norm | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Causal self-attention by the models' kernels, of ``x`` [B, T, D padded].

    ``cache``: one layer, updated in place; None: one of T positions. ``index``: position of the
    first query, an integer or a tensor [] or [B]. ``mask`` [B, S] bool, S the cache's positions.
    """
    batch, tokens, _ = x.shape
    if cache is None:
        cache = KVCache(x.device, batch, 1, tokens, weights.heads, weights.dim)
    _check_cache(cache, batch, weights)
    if isinstance(index, Tensor):
        start = ops.broadcast_to(ops.cast(index, "uint32"), (batch,))  # the caller checks it
    else:
        first = integer("cache_update_index", index, 0, cache.length - tokens)
        start = tensor([first] * batch, "uint32", device=x.device)
    mask = _capacity_mask("padding_mask", mask, cache)
    return attend(
        x, weights.c_attn, weights.c_proj, cache, 0, start,
        scale=weights.scale, norm=norm, mask=mask, residual=residual,
    )  # fmt: skip


def attend_across(
    x: Tensor,
    source: Tensor,
    weights: AttentionWeights,
    cache: KVCache | None,
    index: Any,
    mask: Tensor | None,
    norm: Norm | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Cross-attention by the models' kernels: of ``x`` [B, T, D padded] over all of ``source``.

    ``source`` [B, S, E padded]. ``cache``: one layer of S positions, to which the keys and values
    of ``source`` are written with ``index`` 0, and which is only read with None; without a cache
    they are computed for this call. ``mask`` [B, S] bool.
    """
    batch, length = source.shape[:2]
    if batch != x.shape[0]:
        raise ShapeError(f"{batch} encoder sequences for {x.shape[0]} decoder sequences")
    q_attn, c_attn, c_proj = weights.q_attn, weights.c_attn, weights.c_proj
    if q_attn is None:
        raise InvalidArgumentError("these weights are those of self-attention")
    if cache is None:
        cache, index = KVCache(x.device, batch, 1, length, weights.heads, weights.dim), 0
    _check_cache(cache, batch, weights)
    start = full(x.device, (batch,), 0, "uint32")
    if index is not None:
        integer("cross_attention_cache_update_index", index, 0, 0)
        if length != cache.length:
            raise ShapeError(
                f"an encoder sequence of {length} positions for a cache of {cache.length}: a "
                "KVCache of cross-attention is written as a whole"
            )
        both = linear(source, c_attn.weight, c_attn.bias)
        both = both.view((batch, length, 2, weights.heads, weights.padded_dim))
        store_keys_and_values(both[:, :, 0], both[:, :, 1], cache, 0, start)
    mixed = cached_attention(
        linear(x, q_attn.weight, q_attn.bias, norm=norm), cache, 0, start,
        scale=weights.scale, mask=_capacity_mask("encoder_padding_mask", mask, cache),
        one_order=rounds_activations(x.device, c_proj.weight), causal=False,
    )  # fmt: skip
    return linear(mixed, c_proj.weight, c_proj.bias, residual=residual)


def attend_in_any_order(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: AttentionWeights,
    cache: Tensor | None,
    index: Any,
    mask: Tensor | None,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    return_scores: bool = False,
    value_dim: int | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Attention of ``query`` [B, T, D padded] over all positions that ``mask`` [B, T, S] shows.

    ``cache`` [B, 2, S, H, D], not changed; ``index``: where keys and values are written in the new
    one, which is returned; None: the cache is used as it is. With ``return_scores`` also the
    scores [B, H, T, S], else None. ``value_dim``: size of a head of the values, by default D.
    """
    if cache is None and index is not None:
        raise InvalidArgumentError("a cache_update_index is given without a cache")
    heads, dim = weights.heads, weights.dim
    projected: dict[tuple[int, int], Tensor] = {}

    def part(x: Tensor, name: str, size: int = dim) -> Tensor:
        """What a linear layer computes from ``x``, which may be several parts at once."""
        layer, names = next(each for each in weights.projections() if name in each[1])
        if (place := (id(x), id(layer))) not in projected:
            own = norm if "query" in names else None
            projected[place] = linear(x, layer.weight, layer.bias, norm=own)
        shape = (*x.shape[:2], len(names), heads, round_up(size, 8))
        return projected[place].view(shape)[:, :, names.index(name), :, :size]

    q, size = part(query, "query"), value_dim or dim
    if cache is None:
        k, v = part(key, "key"), part(value, "value", size)
    else:
        if size != dim:
            raise InvalidArgumentError(
                f"a cache holds keys and values of one size, and the heads have {dim} and {size}"
            )
        if cache.ndim != 5 or cache.shape[:2] != (query.shape[0], 2) or cache.shape[3:] != (
            heads, dim,
        ):  # fmt: skip
            raise ShapeError(
                f"a cache has the shape [B, 2, S, H, D] = [{query.shape[0]}, 2, S, {heads}, {dim}],"
                f" not {cache.shape}"
            )
        k, v = cache[:, 0], cache[:, 1]
        if index is not None:
            at = index.item() if isinstance(index, Tensor) else index
            first = integer("cache_update_index", at, 0, cache.shape[2] - key.shape[1])
            k = ops.slice_update(k, (0, first, 0, 0), part(key, "key"))
            v = ops.slice_update(v, (0, first, 0, 0), part(value, "value"))
            cache = ops.concat([ops.expand_dims(k, 1), ops.expand_dims(v, 1)], axis=1)
    scores = attention_scores(q, k, mask, weights.scale) if return_scores else None
    mixed = ops.attention(q, k, v, mask, scale=weights.scale)  # (B, T, H, D)
    mixed = pad_last_axis(mixed)
    mixed = mixed.view((*query.shape[:2], heads * mixed.shape[-1]))
    out = linear(mixed, weights.c_proj.weight, weights.c_proj.bias, residual=residual)
    return out, cache, scores


def attention_scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return what each query [B, T, H, D] takes of each key [B, S, H, D]: [B, H, T, S], sums 1."""
    products = ops.matmul(ops.transpose(q, (0, 2, 1, 3)), ops.transpose(k, (0, 2, 3, 1)))
    scores = ops.mul(products, scale)
    if mask is not None:
        scores = ops.where(ops.expand_dims(mask, 1), scores, HIDDEN)
    return ops.softmax(scores)


def _check_cache(cache: KVCache, batch: int, weights: AttentionWeights) -> None:
    """Raise ShapeError unless ``cache`` is one of one layer for these weights."""
    if cache.shape[:2] != (batch, 1) or cache.shape[-2:] != (weights.heads, weights.dim):
        raise ShapeError(
            f"a cache [B, L, 2, S, H, D] of shape {cache.shape} is not one of one layer for "
            f"B = {batch}, H = {weights.heads}, D = {weights.dim}"
        )


def _capacity_mask(name: str, mask: Tensor | None, cache: KVCache) -> Tensor | None:
    """Return ``mask`` [B, S] as the kernels read it, uint32 [B, capacity]."""
    if mask is None:
        return None
    batch = cache.shape[0]
    if mask.shape != (batch, cache.length):
        raise ShapeError(f"{name} has shape {mask.shape}, not {(batch, cache.length)}")
    mask = ops.cast(mask, "uint32")
    rest = cache.capacity - cache.length
    if not rest:
        return mask
    return ops.concat([mask, full(mask.device, (batch, rest), 0, "uint32")], axis=1)
