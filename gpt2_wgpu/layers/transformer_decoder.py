"""Transformer decoder, as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpt2_wgpu.activation_names import ACTIVATION_KINDS
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.attention_calls import attend_across, attend_in_any_order, attend_in_order
from gpt2_wgpu.layers.attention_layer import CachedMultiHeadAttention
from gpt2_wgpu.layers.attention_weights import AttentionWeights
from gpt2_wgpu.layers.decoder_weights import CrossBlock, block_shapes, pack_block, unpack_block
from gpt2_wgpu.layers.initializers import Initializer, check_initializer, initializer_config
from gpt2_wgpu.layers.layer import Layer, Shapes
from gpt2_wgpu.layers.masks import (
    as_mask,
    attach_mask,
    attached_mask,
    decoder_mask,
    merge_padding_and_attention_mask,
)
from gpt2_wgpu.layers.normalization_layer import normalize
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.nn import Block, KVCache, LayerNorm, Linear, Norm, feed_forward
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.validation import integer


class TransformerDecoder(Layer):
    """Transformer decoder (KerasHub's signature): a block of GPT-2.

    A layer whose first call has an ``encoder_sequence`` has cross-attention between self-attention
    and feed-forward layer, and every call needs that argument then.

    Args:
        intermediate_dim: width of the feed-forward layer.
        num_heads: number of attention heads.
        dropout: without effect in inference.
        activation: name of Keras or Hugging Face, e.g. "gelu_new", which GPT-2 has.
        layer_norm_epsilon: added to variances.
        kernel_initializer, bias_initializer: names of Keras, or functions; see `initializers`.
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
        encoder_shape = kwargs.pop("encoder_sequence_shape", None)
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
        self._encoder_width: int | None = None  # with cross-attention
        if shape is not None:
            self.build(shape, encoder_shape)

    def __call__(
        self,
        decoder_sequence: Any,
        encoder_sequence: Any = None,
        decoder_padding_mask: Any = None,
        decoder_attention_mask: Any = None,
        encoder_padding_mask: Any = None,
        encoder_attention_mask: Any = None,
        self_attention_cache: Tensor | None = None,
        self_attention_cache_update_index: Any = None,
        cross_attention_cache: Tensor | None = None,
        cross_attention_cache_update_index: Any = None,
        use_causal_mask: bool = True,
        training: bool | None = None,
    ) -> Any:
        """Compute the block for ``decoder_sequence`` [B, T, D].

        Args:
            decoder_sequence: the residual stream.
            decoder_padding_mask: [B, T], with a cache [B, S]; 0 or False hides a position. None:
                the mask attached to ``decoder_sequence``, which the result has, too.
            decoder_attention_mask: [B, T, T], with a cache [B, T, S]; 0 or False hides a key.
            self_attention_cache: [B, 2, S, H, D / H], of which a changed copy is returned; or a
                `KVCache` of one layer, which is updated in place by the kernels of the models.
            self_attention_cache_update_index: position of the sequence in the cache, an integer
                (with a KVCache also a tensor [B]).
            use_causal_mask: whether positions attend to no later one.
            training: without effect.
            encoder_sequence: [B, S, E], to all of which each position attends; None: the layer has
                no cross-attention. With a cache that is only read its values do not count.
            encoder_padding_mask: [B, S]; 0 or False hides a position. None: the mask attached to
                ``encoder_sequence``.
            encoder_attention_mask: [B, T, S]; 0 or False hides a key.
            cross_attention_cache: keys and values of the encoder's sequence, [B, 2, S, H, D / H],
                of which a changed copy is returned; or a `KVCache` of one layer, updated in place.
                Exactly if there is a ``self_attention_cache``.
            cross_attention_cache_update_index: 0 computes the cross_attention_cache, None reads it
                as an earlier call returned it.

        Returns:
            [B, T, D]; with caches (that, self_attention_cache[, cross_attention_cache]).

        Raises:
            InvalidArgumentError: the layer has cross-attention and there is no encoder_sequence, or
                the reverse; or an argument does not fit.
            ShapeError: the shapes do not fit.
        """
        cache, index = self_attention_cache, self_attention_cache_update_index
        in_order = use_causal_mask and decoder_attention_mask is None
        if isinstance(cache, KVCache) and (not in_order or index is None):
            raise InvalidArgumentError(
                "a KVCache is for causal attention with an update index and no attention mask: "
                "pass a tensor [B, 2, S, H, D]"
            )
        cross_cache, cross_index = cross_attention_cache, cross_attention_cache_update_index
        mask = attached_mask(decoder_sequence)
        padding = mask if decoder_padding_mask is None else decoder_padding_mask
        if encoder_padding_mask is None:
            encoder_padding_mask = attached_mask(encoder_sequence)
        masks = encoder_padding_mask, encoder_attention_mask
        given = (encoder_sequence, *masks, cross_cache, cross_index)
        with tidy(self.name) as scope:
            x, encoder = self._inputs(decoder_sequence, *given)
            if encoder is not None and (cache is None) != (cross_cache is None):
                raise InvalidArgumentError(
                    "self_attention_cache and cross_attention_cache must both be given or neither"
                )
            width = x.shape[-1]
            x = pad_last_axis(x)
            if isinstance(cache, KVCache) or (cache is None and in_order and index is None):
                if padding is not None:
                    padding = as_mask("decoder_padding_mask", padding, 2, self.device)
                index = 0 if index is None else index
                x = self._attention_block(x, width, cache, index, padding)
            else:
                seen = decoder_mask(
                    x, padding, decoder_attention_mask, cache, index, use_causal_mask
                )
                x, cache = self._masked_attention_block(x, width, cache, index, seen)
            caches = [cache]
            if encoder is not None:
                x, cross_cache = self._cross_attention_block(
                    x, width, encoder, cross_cache, cross_index, *masks
                )
                caches.append(cross_cache)
            x = attach_mask(self._feed_forward_block(x, width)[..., :width], mask)
            if self_attention_cache is None:
                return scope.escape(x)
            made = [each for each in caches if not isinstance(each, KVCache)]
            scope.escape((x, made))
            return (x, *caches)

    def _inputs(
        self,
        decoder_sequence: Any,
        encoder_sequence: Any,
        *of_encoder: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return both sequences; creates the weights if there are none."""
        x = self._operand(decoder_sequence, 3)
        encoder = None if encoder_sequence is None else self._operand(encoder_sequence, 3)
        self.build(x.shape, None if encoder is None else encoder.shape)
        if encoder is None:
            if self._encoder_width is not None:
                raise InvalidArgumentError(
                    f"layer {self.name} has cross-attention: pass encoder_sequence"
                )
            if any(each is not None for each in of_encoder):
                raise InvalidArgumentError(
                    f"layer {self.name} has no cross-attention: leave out masks and caches of the "
                    "encoder, or pass an encoder_sequence, too"
                )
        elif self._encoder_width is None:
            raise InvalidArgumentError(
                f"layer {self.name} was made without cross-attention, and encoder_sequence is "
                "given: leave it out, or make a layer whose first call has it"
            )
        elif encoder.shape[-1] != self._encoder_width:
            raise ShapeError(
                f"layer {self.name} was made for an encoder_sequence of width "
                f"{self._encoder_width}, not {list(encoder.shape)}"
            )
        self._check_width(x)
        return x, encoder

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

    def _cross_attention_block(
        self,
        x: Tensor,
        width: int,
        encoder: Tensor,
        cache: Tensor | None,
        index: Any,
        padding: Any,
        attention: Any,
    ) -> tuple[Tensor, Tensor | None]:
        block: CrossBlock = self._weights
        weights = replace(block.crossattention, scale=self._scale(width))
        norm = self._norm(block.ln_cross_attn, weights.q_attn, width)
        source = pad_last_axis(encoder)
        if isinstance(cache, KVCache) and attention is not None:
            raise InvalidArgumentError(
                "a KVCache of cross-attention takes an encoder_padding_mask [B, S]: pass a tensor "
                "[B, 2, S, H, D] with an encoder_attention_mask"
            )
        if isinstance(cache, KVCache) or (cache is None and attention is None and index is None):
            if padding is not None:
                padding = as_mask("encoder_padding_mask", padding, 2, self.device)
            x = attend_across(x, source, weights, cache, index, padding, norm, residual=x)
        else:
            mask = merge_padding_and_attention_mask(x, padding, attention)
            x, cache, _ = attend_in_any_order(
                x, source, source, weights, cache, index, mask, norm, residual=x
            )
        return self._normalized(x, block.ln_cross_attn, width), cache

    def _feed_forward_block(self, x: Tensor, width: int) -> Tensor:
        block = self._weights
        x = feed_forward(
            x, block.c_fc, block.mlp_c_proj, residual=x,
            norm=self._norm(block.ln_2, block.c_fc, width),
            activation=ACTIVATION_KINDS[self.activation],
        )  # fmt: skip
        return self._normalized(x, block.ln_2, width)

    def _norm(self, norm: LayerNorm, linear: Linear | None, width: int) -> Norm | None:
        """Return a norm in front of a linear layer, if that is its place."""
        if linear is None or linear.folded is None or not self.normalize_first:
            return None
        return Norm(norm.weight, norm.bias, linear.folded, width, self.layer_norm_epsilon)

    def _normalized(self, x: Tensor, norm: LayerNorm, width: int) -> Tensor:
        """Return ``x`` after the norm, if that is its place; padded."""
        if self.normalize_first:
            return x
        return pad_last_axis(normalize(x, norm, self.layer_norm_epsilon, width))

    def _attention(self, width: int) -> AttentionWeights:
        block, dim = self._weights, width // self.num_heads
        scale = self._scale(width)
        return AttentionWeights(block.c_attn, block.attn_c_proj, self.num_heads, dim, scale)

    def _scale(self, width: int) -> float:
        """Return the factor of attention scores."""
        return 1 / math.sqrt(width // self.num_heads) if self.scale is None else self.scale

    @property
    def self_attention_layer(self) -> CachedMultiHeadAttention:
        """The attention alone, without norm and residual, over the same weights."""
        self._check_built()
        width = self._shapes["feedforward_intermediate_dense/kernel"][0]
        return CachedMultiHeadAttention.of_model(
            self._attention(width), self.device, (None, None, width), name="self_attention",
            dtype=self.dtype, num_heads=self.num_heads, key_dim=width // self.num_heads,
        )  # fmt: skip

    def build(
        self,
        input_shape: Sequence[Any] | None = None,
        encoder_sequence_shape: Sequence[Any] | None = None,
        **shapes: Sequence[Any],
    ) -> None:
        """Create the weights, see `Layer.build`.

        Args:
            input_shape: shape of the decoder's sequence, also ``decoder_sequence_shape``.
            encoder_sequence_shape: shape of the encoder's sequence; None: no cross-attention.
            **shapes: as in `Layer.build`.
        """
        if not self.built:
            given = None if encoder_sequence_shape is None else encoder_sequence_shape[-1]
            name = "the last axis of encoder_sequence_shape"
            self._encoder_width = None if given is None else integer(name, given, 1, 1 << 20)
        super().build(input_shape, **shapes)

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        width = input_shape[-1]
        if width % self.num_heads:
            raise ShapeError(f"a width of {width} is not a multiple of num_heads {self.num_heads}")
        return block_shapes(width, self.intermediate_dim, self.num_heads, self._encoder_width)

    def _initializers(self) -> Mapping[str, Initializer]:
        kernel, bias = self.kernel_initializer, self.bias_initializer
        return {"kernel": kernel, "bias": bias, "gamma": "ones", "beta": "zeros"}

    def _packed(self, values: dict[str, Tensor]) -> Block:
        return pack_block(values, self.dtype, self.normalize_first)

    def _unpacked(self) -> list[Tensor]:
        width = self._shapes["feedforward_output_dense/bias"][0]
        return unpack_block(
            self._weights, self._attention(width), self.intermediate_dim, self._encoder_width
        )

    def _arguments(self) -> dict[str, Any]:
        config = {
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": initializer_config(self.kernel_initializer),
            "bias_initializer": initializer_config(self.bias_initializer),
            "normalize_first": self.normalize_first,
        }
        if self.scale is not None:
            config["scale"] = self.scale
        if self._encoder_width is not None:  # the weights of cross-attention come with the layer
            width = self._shapes["feedforward_output_dense/bias"][0]
            config["decoder_sequence_shape"] = [None, None, width]
            config["encoder_sequence_shape"] = [None, None, self._encoder_width]
        return config
