"""Transformer decoder, as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.activation_names import ACTIVATION_KINDS
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.attention_layer import (
    AttentionWeights,
    CachedMultiHeadAttention,
    attend_in_any_order,
    attend_in_order,
    attention_shapes,
    pack_attention,
    unpack_attention,
)
from gpt2_wgpu.layers.initializers import Initializer, check_initializer
from gpt2_wgpu.layers.layer import Layer, Shapes
from gpt2_wgpu.layers.masks import as_mask, compute_causal_mask, merge_padding_and_attention_mask
from gpt2_wgpu.layers.normalization_layer import normalize, pack_norm, unpack_norm
from gpt2_wgpu.layers.packed_weights import (
    pack_linear,
    pad_last_axis,
    padded_axis,
    unpack_matrix,
    unpack_vector,
)
from gpt2_wgpu.nn import Axis, Block, KVCache, LayerNorm, Linear, Norm, feed_forward
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.validation import integer

_CROSS = (
    "encoder_sequence", "encoder_padding_mask", "encoder_attention_mask", "cross_attention_cache",
    "cross_attention_cache_update_index",
)  # fmt: skip


class TransformerDecoder(Layer):
    """Transformer decoder without cross-attention (KerasHub's signature): a block of GPT-2.

    Args:
        intermediate_dim: width of the feed-forward layer.
        num_heads: number of attention heads.
        dropout: without effect in inference.
        activation: name of Keras or Hugging Face, e.g. "gelu_new", which GPT-2 has.
        layer_norm_epsilon: added to variances.
        kernel_initializer, bias_initializer: names of Keras; see `initializers`.
        normalize_first: whether norms precede attention and feed-forward layer, as in GPT-2.
        scale: factor of attention scores; None: 1 / sqrt(size of a head).
    """

    def __init__(
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0,
        activation: str = "relu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        normalize_first: bool = False,
        *,
        scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        shape = kwargs.pop("decoder_sequence_shape", None)  # in KerasHub's configurations
        if kwargs.pop("encoder_sequence_shape", None) is not None:
            raise InvalidArgumentError("TransformerDecoder has no cross-attention, as GPT-2")
        super().__init__(**kwargs)
        self.intermediate_dim = integer("intermediate_dim", intermediate_dim, 1, 1 << 20)
        self.num_heads = integer("num_heads", num_heads, 1, 1 << 12)
        self.dropout = dropout
        if not isinstance(activation, str) or activation not in ACTIVATION_KINDS:
            raise InvalidArgumentError(
                f"activation {shown(activation)} is none of {', '.join(ACTIVATION_KINDS)}"
            )
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.bias_initializer = check_initializer(bias_initializer)
        self.normalize_first = bool(normalize_first)
        self.scale = scale
        if shape is not None:
            self.build(shape)

    def __call__(
        self,
        decoder_sequence: Any,
        encoder_sequence: None = None,
        decoder_padding_mask: Any = None,
        decoder_attention_mask: Any = None,
        encoder_padding_mask: None = None,
        encoder_attention_mask: None = None,
        self_attention_cache: Tensor | None = None,
        self_attention_cache_update_index: Any = None,
        cross_attention_cache: None = None,
        cross_attention_cache_update_index: None = None,
        use_causal_mask: bool = True,
        training: bool | None = None,
    ) -> Any:
        """Compute the block for ``decoder_sequence`` [B, T, D].

        Args:
            decoder_sequence: the residual stream.
            decoder_padding_mask: [B, T], with a cache [B, S]; 0 or False hides a position.
            decoder_attention_mask: [B, T, T], with a cache [B, T, S]; 0 or False hides a key.
            self_attention_cache: [B, 2, S, H, D / H], of which a changed copy is returned; or a
                `KVCache` of one layer, which is updated in place by the kernels of the models.
            self_attention_cache_update_index: position of the sequence in the cache, an integer
                (with a KVCache also a tensor [B]).
            use_causal_mask: whether positions attend to no later one.
            training: without effect.
            encoder_sequence: must be None.
            encoder_padding_mask: must be None.
            encoder_attention_mask: must be None.
            cross_attention_cache: must be None.
            cross_attention_cache_update_index: must be None.

        Returns:
            [B, T, D]; with a cache (that, cache).

        Raises:
            InvalidArgumentError: cross-attention is asked for, or an argument does not fit.
            ShapeError: the shapes do not fit.
        """
        given = locals()
        if wrong := [name for name in _CROSS if given[name] is not None]:
            raise InvalidArgumentError(
                f"{wrong[0]} is given, and TransformerDecoder has no cross-attention, as GPT-2: "
                "leave it out"
            )
        cache, index = self_attention_cache, self_attention_cache_update_index
        in_order = use_causal_mask and decoder_attention_mask is None
        if isinstance(cache, KVCache) and (not in_order or index is None):
            raise InvalidArgumentError(
                "a KVCache is for causal attention with an update index and no attention mask: "
                "pass a tensor [B, 2, S, H, D]"
            )
        with tidy(self.name) as scope:
            x = self._input(decoder_sequence, 3)
            width = x.shape[-1]
            x = pad_last_axis(x)
            if isinstance(cache, KVCache) or (cache is None and in_order and index is None):
                mask = decoder_padding_mask
                if mask is not None:
                    mask = as_mask("decoder_padding_mask", mask, 2, self.device)
                index = 0 if index is None else index
                x = self._attention_block(x, width, cache, index, mask)
            else:
                mask = self._mask(
                    x, decoder_padding_mask, decoder_attention_mask, cache, index, use_causal_mask
                )
                x, cache = self._masked_attention_block(x, width, cache, index, mask)
            x = self._feed_forward_block(x, width)[..., :width]
            if self_attention_cache is None:
                return scope.escape(x)
            if isinstance(cache, KVCache):
                return scope.escape(x), cache
            return scope.escape((x, cache))

    def _attention_block(
        self, x: Tensor, width: int, cache: KVCache | None, index: Any, mask: Tensor | None
    ) -> Tensor:
        weights, block = self._attention(width), self._weights
        norm = self._norm(block.ln_1, block.c_attn, width)
        x = attend_in_order(x, weights, cache, index, mask, norm, residual=x)
        return self._normalized(x, block.ln_1, width)

    def _masked_attention_block(
        self, x: Tensor, width: int, cache: Tensor | None, index: Any, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        weights, block = self._attention(width), self._weights
        norm = self._norm(block.ln_1, block.c_attn, width)
        x, cache, _ = attend_in_any_order(x, x, x, weights, cache, index, mask, norm, residual=x)
        return self._normalized(x, block.ln_1, width), cache

    def _feed_forward_block(self, x: Tensor, width: int) -> Tensor:
        block = self._weights
        x = feed_forward(
            x, block.c_fc, block.mlp_c_proj, residual=x,
            norm=self._norm(block.ln_2, block.c_fc, width),
            activation=ACTIVATION_KINDS[self.activation],
        )  # fmt: skip
        return self._normalized(x, block.ln_2, width)

    def _norm(self, norm: LayerNorm, linear: Linear, width: int) -> Norm | None:
        """Return a norm in front of a linear layer, if that is its place."""
        if linear.folded is None or not self.normalize_first:
            return None
        return Norm(norm.weight, norm.bias, linear.folded, width, self.layer_norm_epsilon)

    def _normalized(self, x: Tensor, norm: LayerNorm, width: int) -> Tensor:
        """Return ``x`` after the norm, if that is its place; padded."""
        if self.normalize_first:
            return x
        return pad_last_axis(normalize(x, norm, self.layer_norm_epsilon, width))

    def _mask(
        self,
        x: Tensor,
        padding: Any,
        attention: Any,
        cache: Tensor | None,
        index: Any,
        causal: bool,
    ) -> Tensor | None:
        merged = merge_padding_and_attention_mask(x, padding, attention)
        if not causal:
            return merged
        batch, queries, _ = x.shape
        if cache is not None and cache.ndim != 5:
            raise ShapeError(f"a cache has the shape [B, 2, S, H, D], not {cache.shape}")
        keys = queries if cache is None else cache.shape[2]
        first = index.item() if isinstance(index, Tensor) else index or 0  # None: 0
        seen = compute_causal_mask(batch, keys, queries, first, device=x.device)
        return seen if merged is None else ops.logical_and(merged, seen)

    def _attention(self, width: int) -> AttentionWeights:
        block, dim = self._weights, width // self.num_heads
        scale = 1 / math.sqrt(dim) if self.scale is None else self.scale
        return AttentionWeights(block.c_attn, block.attn_c_proj, self.num_heads, dim, scale)

    @property
    def self_attention_layer(self) -> CachedMultiHeadAttention:
        """The attention alone, without norm and residual, over the same weights."""
        self._check_built()
        width = self._shapes["feedforward_intermediate_dense/kernel"][0]
        return CachedMultiHeadAttention.of_model(
            self._attention(width), self.device, (None, None, width), name="self_attention",
            dtype=self.dtype, num_heads=self.num_heads, key_dim=width // self.num_heads,
        )  # fmt: skip

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        width, inner = input_shape[-1], self.intermediate_dim
        if width % self.num_heads:
            raise ShapeError(f"a width of {width} is not a multiple of num_heads {self.num_heads}")
        attention = attention_shapes(width, self.num_heads, width // self.num_heads)
        return {f"self_attention/{name}": shape for name, shape in attention.items()} | {
            "self_attention_layer_norm/gamma": (width,),
            "self_attention_layer_norm/beta": (width,),
            "feedforward_intermediate_dense/kernel": (width, inner),
            "feedforward_intermediate_dense/bias": (inner,),
            "feedforward_output_dense/kernel": (inner, width),
            "feedforward_output_dense/bias": (width,),
            "feedforward_layer_norm/gamma": (width,),
            "feedforward_layer_norm/beta": (width,),
        }

    def _initializers(self) -> Mapping[str, Initializer]:
        kernel, bias = self.kernel_initializer, self.bias_initializer
        return {"kernel": kernel, "bias": bias, "gamma": "ones", "beta": "zeros"}

    def _packed(self, values: dict[str, Tensor]) -> Block:
        ln_1, ln_2 = (
            pack_norm(values[f"{name}_layer_norm/gamma"], values[f"{name}_layer_norm/beta"])
            for name in ("self_attention", "feedforward")
        )
        hidden = padded_axis(self.intermediate_dim)
        stream = padded_axis(values["feedforward_output_dense/bias"].size)
        attention = {
            name.removeprefix("self_attention/"): value
            for name, value in values.items()
            if name.startswith("self_attention/")
        }
        first = self.normalize_first
        packed = pack_attention(attention, self.dtype, 1.0, ln_1 if first else None)

        def dense(name: str, out: Axis, in_: Axis, norm: LayerNorm | None) -> Linear:
            kernel, bias = values[f"{name}/kernel"], values[f"{name}/bias"]
            return pack_linear(kernel, bias, self.dtype, out, in_, norm)

        c_fc = dense("feedforward_intermediate_dense", hidden, stream, ln_2 if first else None)
        c_proj = dense("feedforward_output_dense", stream, hidden, None)
        return Block(ln_1, packed.c_attn, packed.c_proj, ln_2, c_fc, c_proj)

    def _unpacked(self) -> list[Tensor]:
        block = self._weights
        width = self._shapes["feedforward_output_dense/bias"][0]
        stream, hidden = padded_axis(width), padded_axis(self.intermediate_dim)
        return [
            *unpack_attention(self._attention(width), width),
            *unpack_norm(block.ln_1, width),
            unpack_matrix(block.c_fc.weight, hidden, stream),
            unpack_vector(block.c_fc.bias, hidden),
            unpack_matrix(block.mlp_c_proj.weight, stream, hidden),
            unpack_vector(block.mlp_c_proj.bias, stream),
            *unpack_norm(block.ln_2, width),
        ]

    def _arguments(self) -> dict[str, Any]:
        config = {
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": self.kernel_initializer,
            "bias_initializer": self.bias_initializer,
            "normalize_first": self.normalize_first,
        }
        return config if self.scale is None else config | {"scale": self.scale}
