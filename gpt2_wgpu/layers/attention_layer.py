"""Multi-head attention with a cache, as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.attention_calls import attend_in_any_order, attend_in_order
from gpt2_wgpu.layers.attention_weights import attention_shapes, pack_attention, unpack_attention
from gpt2_wgpu.layers.initializers import Initializer, check_initializer, initializer_config
from gpt2_wgpu.layers.layer import Layer, Shapes
from gpt2_wgpu.layers.masks import as_bool, as_mask
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.validation import integer


class CachedMultiHeadAttention(Layer):
    """Multi-head attention with an optional cache of keys and values (KerasHub's signature).

    Queries, keys and values may be projected from different widths.

    Args:
        num_heads: number of heads.
        key_dim: size of a head.
        value_dim: size of a head of the values; None: ``key_dim``. Only without a cache may it be
            another one.
        dropout: without effect in inference.
        use_bias: whether the projections have biases.
        kernel_initializer, bias_initializer: names of Keras, or functions; see `initializers`.
        output_shape: last axes of the result, an integer or several; None: the queries' width.
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
        *,
        output_shape: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in _UNSUPPORTED & kwargs.keys():
            if kwargs.pop(name) not in (None, False, (1,), [1]):
                raise InvalidArgumentError(f"CachedMultiHeadAttention has no {name}: leave it out")
        super().__init__(**kwargs)
        self.num_heads = integer("num_heads", num_heads, 1, 1 << 12)
        self.key_dim = integer("key_dim", key_dim, 1, 512)
        value_dim = key_dim if value_dim is None else value_dim
        self.value_dim = integer("value_dim", value_dim, 1, 512)
        self.output_shape: tuple[int, ...] | None = None
        if output_shape is not None:
            given = output_shape if isinstance(output_shape, Sequence) else [output_shape]
            self.output_shape = tuple(integer("output_shape", size, 1, 1 << 20) for size in given)
        self.dropout, self.use_bias = dropout, bool(use_bias)
        self._key_width: int | None = None  # None: the queries'
        self._value_width: int | None = None
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
            [B, T, D], or [B, T, *output_shape]; with scores also these; with a cache also the
            cache, as the last.

        Raises:
            ShapeError: the shapes do not fit.
            InvalidArgumentError: an argument is not supported.
        """
        with tidy(self.name) as scope:
            x = self._operand(query, 3)
            v = x if value is query else self._operand(value, 3)
            k = v if key is None or key is value else self._operand(key, 3)
            width = x.shape[-1]
            self.build(query_shape=x.shape, value_shape=v.shape, key_shape=k.shape)
            self._check_width(x)
            widths = self._key_width or width, self._value_width or width
            if (k.shape[-1], v.shape[-1]) != widths:
                raise ShapeError(
                    f"layer {self.name} projects keys and values from the widths {widths}, not "
                    f"from keys {list(k.shape)} and values {list(v.shape)}"
                )
            if k.shape[1] != v.shape[1]:
                raise ShapeError(f"keys {list(k.shape)} for values {list(v.shape)}: lengths differ")
            x, k, v = _padded(x, k, v)
            if isinstance(cache, KVCache):
                fits = x is k is v and self.value_dim == self.key_dim
                if not fits or cache_update_index is None or return_attention_scores:
                    raise InvalidArgumentError(
                        "a KVCache is for self-attention with a cache_update_index and one size of "
                        "heads, without scores: pass a tensor [B, 2, S, H, D] for other attention"
                    )
                mask = None
                if attention_mask is not None:
                    mask = as_mask("attention_mask", attention_mask, 2, self.device)
                out = attend_in_order(x, self._weights, cache, cache_update_index, mask)
                return scope.escape(self._shaped(out, width)), cache
            mask = None
            if attention_mask is not None:
                mask = as_bool("attention_mask", attention_mask, self.device)
                mask = as_mask("attention_mask", mask[None] if mask.ndim == 2 else mask, 3, None)
            out, changed, scores = attend_in_any_order(
                x, k, v, self._weights, cache, cache_update_index, mask,
                return_scores=return_attention_scores, value_dim=self.value_dim,
            )  # fmt: skip
            given = (self._shaped(out, width), scores, changed)
            results = tuple(result for result in given if result is not None)
            return scope.escape(results if len(results) > 1 else results[0])

    def build(self, input_shape: Sequence[Any] | None = None, **shapes: Sequence[Any]) -> None:
        """Create the weights, see `Layer.build`.

        Args:
            input_shape: shape of the queries.
            **shapes: instead ``query_shape``, and ``value_shape`` and ``key_shape``, whose last
                axis may be another one.

        """
        if input_shape is None:
            input_shape = shapes.get("query_shape")
        if input_shape is not None and not self.built:
            value_shape = shapes.get("value_shape", input_shape)
            self._value_width = value_shape[-1]
            self._key_width = shapes.get("key_shape", value_shape)[-1]
        super().build(input_shape, **shapes)

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        return attention_shapes(
            input_shape[-1], self.num_heads, self.key_dim, self.use_bias,
            key_width=self._key_width, value_width=self._value_width,
            value_dim=self.value_dim, output_shape=self.output_shape,
        )  # fmt: skip

    def compute_output_shape(
        self,
        query_shape: Sequence[Any],
        value_shape: Sequence[Any],
        key_shape: Sequence[Any] | None = None,
    ) -> tuple[Any, ...]:
        """Return the shape of the result; None means any size.

        Raises:
            ShapeError: a shape has not three axes, or keys and values have different lengths.
        """
        keys = value_shape if key_shape is None else key_shape
        shapes = [tuple(shape) for shape in (query_shape, value_shape, keys)]
        if {len(shape) for shape in shapes} != {3} or shapes[1][1] != shapes[2][1]:
            query, value, key = map(list, shapes)
            raise ShapeError(
                f"query {query}, value {value}, key {key}: each must be [batch, positions, width], "
                "with one number of positions for value and key"
            )
        return shapes[0] if self.output_shape is None else (*shapes[0][:2], *self.output_shape)

    def _shaped(self, out: Tensor, width: int) -> Tensor:
        """Return a result [B, T, D padded] in its shape."""
        if self.output_shape is None:
            return out[..., :width]
        size = math.prod(self.output_shape)
        return ops.reshape(out[..., :size], (*out.shape[:-1], *self.output_shape))

    def _initializers(self) -> Mapping[str, Initializer]:
        return {"kernel": self.kernel_initializer, "bias": self.bias_initializer}

    def _packed(self, values: dict[str, Tensor]) -> Any:
        return pack_attention(values, self.dtype, 1 / math.sqrt(self.key_dim))

    def _unpacked(self) -> list[Tensor]:
        return unpack_attention(self._weights, self._shapes)

    def _arguments(self) -> dict[str, Any]:
        return {
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": initializer_config(self.kernel_initializer),
            "bias_initializer": initializer_config(self.bias_initializer),
            "output_shape": None if self.output_shape is None else list(self.output_shape),
        }


def _padded(*given: Tensor) -> list[Tensor]:
    """Return tensors with their last axes padded; one that is given twice stays one."""
    padded = {id(x): pad_last_axis(x) for x in given}
    return [padded[id(x)] for x in given]


_UNSUPPORTED = {
    "attention_axes", "sliding_window", "flash_attention", "use_gate", "seed",
    "kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
    "bias_constraint",
}  # fmt: skip
