"""What TensorFlow.js's specs of attention and decoder check; as test_tfjs_layers.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu.layers.test_tfjs_layers import assert_close, check_memory, check_shape, numbers
from tests.tfjs_specs import Specs

pytestmark = pytest.mark.usefixtures("device", "no_leak")

spec = Specs()


def check_cache(step: Callable[..., Any], x: gw.Tensor, heads: int) -> None:
    """All positions at once give what they give one after the other, results and cache."""
    batch, tokens, width = x.shape
    empty = gw.tensor([[[[[0.0] * (width // heads)] * heads] * tokens] * 2] * batch)
    at_once, filled = step(x, empty, 0, tokens)
    outputs, cache = [], empty
    for i in range(tokens):
        y, cache = step(x[:, i : i + 1], cache, i, 1)
        outputs.append(y)
    assert_close(ops.concat(outputs, axis=1), at_once)
    assert_close(cache, filled)


@spec("CachedMultiHeadAttention: valid call")
def _() -> None:
    layer, x = layers.CachedMultiHeadAttention(2, 4), numbers(2, 2, 8)
    assert layer(x, x).shape == x.shape
    layer.dispose()


@spec("CachedMultiHeadAttention: cache call is correct")
def _() -> None:
    layer = layers.CachedMultiHeadAttention(2, 4)
    mask = layers.compute_causal_mask(1, 5, 5)[0]

    def step(x: gw.Tensor, cache: gw.Tensor, first: int, tokens: int) -> Any:
        return layer(x, x, None, mask[first : first + tokens], cache, first)

    check_cache(step, numbers(2, 5, 8), 2)
    layer.dispose()


@spec("CachedMultiHeadAttention: does not leak memory")
def _() -> None:
    layer, x = layers.CachedMultiHeadAttention(2, 2), numbers(1, 4, 8)
    check_memory(lambda: layer(x, x), 1)
    layer.dispose()


@spec("TransformerDecoder: without_norm_first without cross attention")
def _() -> None:
    check_shape(layers.TransformerDecoder(4, 2), (1, 4, 6))


@spec("TransformerDecoder: with_norm_first without cross attention")
def _() -> None:
    check_shape(layers.TransformerDecoder(4, 2, normalize_first=True), (1, 4, 6))


@spec("TransformerDecoder: invalid call")
def _() -> None:
    layer, x = layers.TransformerDecoder(4, 2), numbers(1, 4, 6)
    layer(x)
    with pytest.raises(InvalidArgumentError):
        layer(x, encoder_sequence=x)
    layer.dispose()


@spec("TransformerDecoder: error when invalid kernel initializer")
def _() -> None:
    with pytest.raises(InvalidArgumentError):
        layers.TransformerDecoder(4, 2, dropout=0.5, kernel_initializer="Invalid")


@spec("TransformerDecoder: serialization round trip")
def _() -> None:
    config = layers.TransformerDecoder(4, 2).get_config()
    assert layers.TransformerDecoder.from_config(config).get_config() == config


@spec("TransformerDecoder: does not leak memory")
def _() -> None:
    layer, x = layers.TransformerDecoder(4, 2), numbers(1, 4, 6)
    check_memory(lambda: layer(x), 1)
    layer.dispose()


@spec("TransformerDecoder: cache call is correct")
def _() -> None:
    layer = layers.TransformerDecoder(4, 2)

    def step(x: gw.Tensor, cache: gw.Tensor, first: int, tokens: int) -> Any:
        return layer(x, self_attention_cache=cache, self_attention_cache_update_index=first)

    check_cache(step, numbers(2, 5, 8), 2)
    layer.dispose()


# The plain class, as CachedMultiHeadAttention without a cache.


@spec("MultiHeadAttention: key value same proj non masked attention")
def _() -> None:
    layer = layers.CachedMultiHeadAttention(12, 64)
    assert layer(numbers(1, 40, 80), numbers(1, 20, 80)).shape == (1, 40, 80)
    layer.dispose()


@spec("MultiHeadAttention: non masked self attention")
def _() -> None:
    layer, x = layers.CachedMultiHeadAttention(12, 64), numbers(1, 40, 80)
    assert layer(x, x).shape == (1, 40, 80)
    layer.dispose()


def check_scores(keys: int) -> None:
    layer, x = layers.CachedMultiHeadAttention(12, 64), numbers(1, 40, 80)
    y, scores = layer(x, numbers(1, keys, 80), return_attention_scores=True)
    assert y.shape == (1, 40, 80) and scores.shape == (1, 12, 40, keys)
    assert_close(ops.sum(scores, -1), ops.ones_like(scores[..., 0]))
    layer.dispose()


@spec("MultiHeadAttention: attention scores")
def _() -> None:
    check_scores(40)


@spec("MultiHeadAttention: attention scores with values")
def _() -> None:
    check_scores(60)


def check_mask(use_bias: bool) -> None:
    layer = layers.CachedMultiHeadAttention(2, 2, use_bias=use_bias)
    query, value = numbers(4, 4, 8), numbers(4, 2, 8)
    masked = layer(query, value, attention_mask=[[[1, 0]] * 4] * 4)
    difference = masked - layer(query, value, attention_mask=[[[1, 1]] * 4] * 4)
    assert ops.max(ops.mul(difference, difference)).item() > 1e-6
    assert len(layer.get_weights()) == (8 if use_bias else 4)
    layer.dispose()


@spec("MultiHeadAttention: with bias")
def _() -> None:
    check_mask(use_bias=True)


@spec("MultiHeadAttention: no bias")
def _() -> None:
    check_mask(use_bias=False)


@spec("MultiHeadAttention: initializers")
def _() -> None:
    normal = {"class_name": "TruncatedNormal", "config": {"stddev": 0.02}}
    layer = layers.CachedMultiHeadAttention(12, 64, kernel_initializer=normal)
    layer.build((1, 40, 80))
    kernels = [weight.tolist() for weight in layer.get_weights()[::2]]
    assert all(kernels[0] != other for other in kernels[1:])
    layer.dispose()


@spec("MultiHeadAttention: key value different proj non masked attention")
def _() -> None:
    layer = layers.CachedMultiHeadAttention(12, 64, value_dim=32, output_shape=[60])
    assert layer(numbers(1, 40, 80), numbers(1, 20, 80)).shape == (1, 40, 60)
    layer.dispose()


def check_output_shape(key: gw.Tensor | None, output_shape: list[int] | None) -> None:
    layer = layers.CachedMultiHeadAttention(2, 2, value_dim=2, output_shape=output_shape)
    query, value = numbers(1, 40, 80), numbers(1, 20, 80)
    y = layer(query, value, key)
    shape = None if key is None else key.shape
    assert y.shape == layer.compute_output_shape(query.shape, value.shape, shape)
    assert y.shape == (1, 40, *(output_shape or [80]))
    layer.dispose()


@spec("MultiHeadAttention: without_key_same_proj")
def _() -> None:
    check_output_shape(None, None)


@spec("MultiHeadAttention: with_key_same_proj")
def _() -> None:
    check_output_shape(numbers(1, 20, 30), None)


@spec("MultiHeadAttention: wihtout_key_different_proj")
def _() -> None:
    check_output_shape(None, [30, 40])


@spec("MultiHeadAttention: with_key_different_proj")
def _() -> None:
    check_output_shape(numbers(1, 20, 30), [15, 50])


def check_output_shape_error(*shapes: tuple[int | None, ...]) -> None:
    with pytest.raises(ShapeError):
        layers.CachedMultiHeadAttention(4, 2, value_dim=2).compute_output_shape(*shapes)


@spec("MultiHeadAttention: key_value_dim_mismatch")
def _() -> None:
    check_output_shape_error((None, 40, 80), (None, 20, 80), (None, 10, 70))


@spec("MultiHeadAttention: key_value_dim_mismatch_high_dim")
def _() -> None:
    value, key = (None, 10, 10, 50, 80), (None, 10, 15, 50, 20)
    check_output_shape_error((None, 40, 20, 30, 80), value, key)


@spec("MultiHeadAttention: does not leak memory")
def _() -> None:
    layer, x = layers.CachedMultiHeadAttention(2, 2), numbers(1, 4, 8)
    check_memory(lambda: layer(x, x, return_attention_scores=True), 2)
    layer.dispose()


@pytest.mark.parametrize("name", spec)
def test_spec(name: str) -> None:
    with gw.tidy():
        spec[name]()
