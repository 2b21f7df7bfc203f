"""Multi-head attention with a cache, as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.initializers import Initializer, check_initializer
from gpt2_wgpu.layers.layer import Layer, Shapes
from gpt2_wgpu.layers.masks import as_bool, as_mask
from gpt2_wgpu.layers.packed_weights import (
    pack_linear,
    pad_last_axis,
    padded_axis,
    unpack_matrix,
    unpack_vector,
)
from gpt2_wgpu.nn import KVCache, LayerNorm, Linear, Norm, attend, linear, round_up
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.validation import integer

HIDDEN = -1e9  # score of a hidden key, as in shaders/attention.wgsl


@dataclass(frozen=True)
class AttentionWeights:
    """Weights of attention: one linear layer for queries, keys and values, one for the result."""

    c_attn: Linear
    c_proj: Linear
    heads: int
    dim: int  # of a head
    scale: float

    @property
    def padded_dim(self) -> int:
        """Width of a head in memory."""
        return round_up(self.dim, 8)


def attention_shapes(width: int, heads: int, dim: int, bias: bool = True) -> Shapes:
    """Return the shapes of the weights, by Keras' names."""
    shapes: Shapes = {}
    for name in ("query", "key", "value"):
        shapes |= {f"{name}/kernel": (width, heads, dim), f"{name}/bias": (heads, dim)}
    output = "attention_output"
    shapes |= {f"{output}/kernel": (heads, dim, width), f"{output}/bias": (width,)}
    return {name: shape for name, shape in shapes.items() if bias or name.endswith("kernel")}


def pack_attention(
    values: Mapping[str, Tensor], dtype: str, scale: float, norm: LayerNorm | None = None
) -> AttentionWeights:
    """Store weights of :func:`attention_shapes`; missing biases are zero."""
    width, heads, dim = values["query/kernel"].shape
    inner = heads * dim
    names = ("query", "key", "value")
    device = values["query/kernel"].device

    def bias(name: str, size: int) -> Tensor:
        given = values.get(f"{name}/bias")
        return tensor([0.0] * size, device=device) if given is None else given.view((size,))

    c_attn = pack_linear(
        ops.concat([values[f"{name}/kernel"].view((width, inner)) for name in names], axis=1),
        ops.concat([bias(name, inner) for name in names]),
        dtype, padded_axis(3 * inner, 3 * heads), padded_axis(width), norm,
    )  # fmt: skip
    c_proj = pack_linear(
        values["attention_output/kernel"].view((inner, width)), bias("attention_output", width),
        dtype, padded_axis(width), padded_axis(inner, heads),
    )  # fmt: skip
    return AttentionWeights(c_attn, c_proj, heads, dim, scale)


def unpack_attention(weights: AttentionWeights, width: int, bias: bool = True) -> list[Tensor]:
    """Return weights in the order of :func:`attention_shapes`."""
    heads, dim = weights.heads, weights.dim
    inner = heads * dim
    all_three, stream = padded_axis(3 * inner, 3 * heads), padded_axis(width)
    kernels = unpack_matrix(weights.c_attn.weight, all_three, stream)
    biases = unpack_vector(weights.c_attn.bias, all_three)
    found = []
    for first in range(0, 3 * inner, inner):
        kernel = kernels[:, first : first + inner]
        found.append(ops.reshape(kernel, (width, heads, dim)))
        found.append(ops.reshape(biases[first : first + inner], (heads, dim)))
    kernel = unpack_matrix(weights.c_proj.weight, stream, padded_axis(inner, heads))
    found += [ops.reshape(kernel, (heads, dim, width)), unpack_vector(weights.c_proj.bias, stream)]
    return found if bias else found[::2]


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
    if cache.shape[:2] != (batch, 1) or cache.shape[-2:] != (weights.heads, weights.dim):
        raise ShapeError(
            f"a cache [B, L, 2, S, H, D] of shape {cache.shape} is not one of one layer for "
            f"B = {batch}, H = {weights.heads}, D = {weights.dim}"
        )
    if isinstance(index, Tensor):
        start = ops.broadcast_to(ops.cast(index, "uint32"), (batch,))  # the caller checks it
    else:
        first = integer("cache_update_index", index, 0, cache.length - tokens)
        start = tensor([first] * batch, "uint32", device=x.device)
    if mask is not None:
        if mask.shape != (batch, cache.length):
            raise ShapeError(f"padding_mask has shape {mask.shape}, not {(batch, cache.length)}")
        rest = tensor([[0] * (cache.capacity - cache.length)] * batch, "uint32", device=x.device)
        mask = ops.cast(mask, "uint32")
        mask = ops.concat([mask, rest], axis=1) if rest.size else mask
    return attend(
        x, weights.c_attn, weights.c_proj, cache, 0, start,
        scale=weights.scale, norm=norm, mask=mask, residual=residual,
    )  # fmt: skip


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
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Attention of ``query`` [B, T, D padded] over all positions that ``mask`` [B, T, S] shows.

    ``cache`` [B, 2, S, H, D], not changed; ``index``: where keys and values are written in the new
    one, which is returned; None: the cache is used as it is. With ``return_scores`` also the
    scores [B, H, T, S], else None.
    """
    heads, dim, padded = weights.heads, weights.dim, weights.padded_dim
    projected: dict[int, Tensor] = {}

    def part(x: Tensor, which: int) -> Tensor:
        if id(x) not in projected:
            both = linear(x, weights.c_attn.weight, weights.c_attn.bias, norm=norm)
            projected[id(x)] = both.view((*x.shape[:2], 3, heads, padded))
        return projected[id(x)][:, :, which, :, :dim]

    q = part(query, 0)
    if cache is None:
        k, v = part(key, 1), part(value, 2)
    else:
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
            k = ops.slice_update(k, (0, first, 0, 0), part(key, 1))
            v = ops.slice_update(v, (0, first, 0, 0), part(value, 2))
            cache = ops.concat([ops.expand_dims(k, 1), ops.expand_dims(v, 1)], axis=1)
    scores = attention_scores(q, k, mask, weights.scale) if return_scores else None
    mixed = ops.attention(q, k, v, mask, scale=weights.scale)  # (B, T, H, D)
    if padded != dim:
        rest = tensor(0.0, device=q.device)
        zeros = ops.broadcast_to(rest, (*mixed.shape[:3], padded - dim))
        mixed = ops.concat([mixed, zeros], axis=-1)
    mixed = mixed.view((*query.shape[:2], heads * padded))
    out = linear(mixed, weights.c_proj.weight, weights.c_proj.bias, residual=residual)
    return out, cache, scores


def attention_scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return what each query [B, T, H, D] takes of each key [B, S, H, D]: [B, H, T, S], sums 1."""
    products = ops.matmul(ops.transpose(q, (0, 2, 1, 3)), ops.transpose(k, (0, 2, 3, 1)))
    scores = ops.mul(products, scale)
    if mask is not None:
        scores = ops.where(ops.expand_dims(mask, 1), scores, HIDDEN)
    return ops.softmax(scores)


class CachedMultiHeadAttention(Layer):
    """Multi-head attention with an optional cache of keys and values (KerasHub's signature).

    Queries, keys and values have one width and one size of heads, as in GPT-2.

    Args:
        num_heads: number of heads.
        key_dim: size of a head.
        value_dim: as ``key_dim``.
        dropout: without effect in inference.
        use_bias: whether the projections have biases.
        kernel_initializer, bias_initializer: names of Keras; see `initializers`.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        **kwargs: Any,
    ) -> None:
        for name in _UNSUPPORTED & kwargs.keys():
            if kwargs.pop(name) not in (None, False, (1,), [1]):
                raise InvalidArgumentError(f"CachedMultiHeadAttention has no {name}: leave it out")
        super().__init__(**kwargs)
        self.num_heads = integer("num_heads", num_heads, 1, 1 << 12)
        self.key_dim = integer("key_dim", key_dim, 1, 512)
        self.value_dim = self.key_dim if value_dim is None else value_dim
        if self.value_dim != self.key_dim:
            raise InvalidArgumentError(
                f"value_dim = {value_dim} differs from key_dim = {key_dim}: heads of keys and "
                "values have one size here"
            )
        self.dropout, self.use_bias = dropout, bool(use_bias)
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.bias_initializer = check_initializer(bias_initializer)

    def __call__(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        attention_mask: Any = None,
        cache: Tensor | None = None,
        cache_update_index: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Attend with ``query`` [B, T, D] to ``value`` [B, S, D].

        Args:
            query: queries.
            value: what keys (without ``key``) and values are projected from.
            key: what keys are projected from.
            attention_mask: [B, T, S], or [T, S] for all rows; 0 or False hides a key.
            cache: [B, 2, S, H, D], of which a changed copy is returned; or a `KVCache` of one
                layer, which is updated in place by faster kernels: each query attends to positions
                up to its own, and ``attention_mask`` is [B, S].
            cache_update_index: position in the cache of the first key, an integer (with a KVCache
                also a tensor [B]). None: the cache is only read.
            return_attention_scores: whether to return, after the result, what each query takes of
                each key: [B, H, T, S]. Not with a `KVCache`.
            training: without effect.

        Returns:
            [B, T, D]; with scores also these; with a cache also the cache, as the last.

        Raises:
            ShapeError: the shapes do not fit.
            InvalidArgumentError: an argument is not supported.
        """
        if cache is None and cache_update_index is not None:
            raise InvalidArgumentError("cache_update_index is given without a cache")
        with tidy(self.name) as scope:
            x = self._input(query, 3)
            width = x.shape[-1]
            x = pad_last_axis(x)
            v = x if value is query else pad_last_axis(self._input(value, 3))
            k = v if key is None or key is value else pad_last_axis(self._input(key, 3))
            if {x.shape[-1], k.shape[-1], v.shape[-1]} != {x.shape[-1]}:
                raise ShapeError("query, key and value must have one width")
            if isinstance(cache, KVCache):
                if not (x is k is v) or cache_update_index is None or return_attention_scores:
                    raise InvalidArgumentError(
                        "a KVCache is for self-attention with a cache_update_index, without "
                        "scores: pass a tensor [B, 2, S, H, D] for other attention"
                    )
                mask = None
                if attention_mask is not None:
                    mask = as_mask("attention_mask", attention_mask, 2, self.device)
                out = attend_in_order(x, self._weights, cache, cache_update_index, mask)
                return scope.escape(out[..., :width]), cache
            mask = None
            if attention_mask is not None:
                mask = as_bool("attention_mask", attention_mask, self.device)
                mask = as_mask("attention_mask", mask[None] if mask.ndim == 2 else mask, 3, None)
            out, changed, scores = attend_in_any_order(
                x, k, v, self._weights, cache, cache_update_index, mask,
                return_scores=return_attention_scores,
            )  # fmt: skip
            given = (out[..., :width], scores, changed)
            results = tuple(result for result in given if result is not None)
            return scope.escape(results if len(results) > 1 else results[0])

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        return attention_shapes(input_shape[-1], self.num_heads, self.key_dim, self.use_bias)

    def _initializers(self) -> Mapping[str, Initializer]:
        return {"kernel": self.kernel_initializer, "bias": self.bias_initializer}

    def _packed(self, values: dict[str, Tensor]) -> Any:
        return pack_attention(values, self.dtype, 1 / math.sqrt(self.key_dim))

    def _unpacked(self) -> list[Tensor]:
        width = self._shapes["query/kernel"][0]
        return unpack_attention(self._weights, width, self.use_bias)

    def _arguments(self) -> dict[str, Any]:
        return {
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": self.kernel_initializer,
            "bias_initializer": self.bias_initializer,
        }


_UNSUPPORTED = {
    "output_shape", "attention_axes", "sliding_window", "flash_attention", "use_gate", "seed",
    "kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
    "bias_constraint",
}  # fmt: skip
