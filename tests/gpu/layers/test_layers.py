"""Layers: their paths agree with each other; caches, weights, configurations and errors."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import (
    ContextLengthError,
    DisposedTensorError,
    InvalidArgumentError,
    ShapeError,
)
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import ops

pytestmark = pytest.mark.usefixtures("device", "no_leak")

BATCH, TOKENS, WIDTH, HEADS = 2, 5, 12, 2  # heads of 6: both axes are padded in memory


def waves(*shape: int, step: float = 0.7) -> gw.Tensor:
    """Numbers without a pattern that a wrong index would keep."""
    values = [math.sin(step * i * i + i) for i in range(math.prod(shape))]
    return ops.reshape(gw.tensor(values), shape)


def decoder(**config: Any) -> layers.TransformerDecoder:
    layer = layers.TransformerDecoder(20, HEADS, activation="gelu_new", **config)
    layer.build((None, None, WIDTH))
    layer.set_weights([waves(*shape, step=0.3 + i) for i, shape in enumerate(shapes(layer))])
    return layer


def shapes(layer: Any) -> list[tuple[int, ...]]:
    return [weight.shape for weight in layer.get_weights()]


def assert_close(a: gw.Tensor, b: gw.Tensor, tolerance: float = 2e-5) -> None:
    assert a.shape == b.shape
    size = 1 + ops.max(ops.mul(b, b)).item() ** 0.5
    difference = ops.max(ops.mul(a - b, a - b)).item() ** 0.5
    assert difference <= tolerance * size  # also false for NaN


@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
def test_a_cache_continues_a_sequence(first: bool) -> None:
    """In both forms of the cache, with a mask, as the whole sequence at once."""
    with gw.tidy():
        layer, x = decoder(normalize_first=first), waves(BATCH, TOKENS, WIDTH)
        mask = [[1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]
        whole = layer(x, decoder_padding_mask=mask)
        fast: Any = KVCache(layer.device, BATCH, 1, TOKENS, HEADS, WIDTH // HEADS)
        plain: Any = ops.mul(waves(BATCH, 2, TOKENS, HEADS, WIDTH // HEADS), 0)
        found: dict[str, list[gw.Tensor]] = {"fast": [], "plain": []}
        for first_position, last in ((0, 3), (3, 5)):
            step = {
                "decoder_padding_mask": mask,
                "self_attention_cache_update_index": first_position,
            }
            part = x[:, first_position:last]
            y, same = layer(part, self_attention_cache=fast, **step)
            assert same is fast
            found["fast"].append(y)
            y, plain = layer(part, self_attention_cache=plain, **step)
            found["plain"].append(y)
        for parts in found.values():
            assert_close(ops.concat(parts, axis=1), whole)
        assert_close(ops.reshape(fast.unpacked(), plain.shape), plain)
        layer.dispose()


def test_rows_may_continue_at_different_positions() -> None:
    with gw.tidy():
        layer, x = decoder(normalize_first=True), waves(BATCH, TOKENS, WIDTH)
        cache = KVCache(layer.device, BATCH, 1, TOKENS, HEADS, WIDTH // HEADS)
        layer(x, self_attention_cache=cache, self_attention_cache_update_index=0)
        start = gw.tensor([2, 4], "uint32")
        new = waves(BATCH, 1, WIDTH, step=0.2)
        y, _ = layer(new, self_attention_cache=cache, self_attention_cache_update_index=start)
        for row, position in enumerate((2, 4)):
            sequence = ops.concat([x[row : row + 1, :position], new[row : row + 1]], axis=1)
            assert_close(y[row : row + 1], layer(sequence)[:, -1:])
        layer.dispose()


def test_an_explicit_causal_mask_is_the_default() -> None:
    with gw.tidy():
        layer, x = decoder(normalize_first=True), waves(BATCH, TOKENS, WIDTH)
        mask = layers.compute_causal_mask(BATCH, TOKENS, TOKENS)
        shown = layer(x, decoder_attention_mask=mask, use_causal_mask=False)
        assert_close(shown, layer(x))
        attention = layer.self_attention_layer
        cache = KVCache(layer.device, BATCH, 1, TOKENS, HEADS, WIDTH // HEADS)
        fast, _ = attention(x, x, cache=cache, cache_update_index=0)
        assert_close(fast, attention(x, x, attention_mask=mask))
        assert_close(fast, attention(x, x, attention_mask=mask[0]))
        layer.dispose()


def test_attention_scores_are_the_weights_of_the_values() -> None:
    """Values that are equal in all positions but one show that position's score in the result."""
    with gw.tidy():
        layer = layers.CachedMultiHeadAttention(HEADS, 6, use_bias=False)
        layer.build((None, None, WIDTH))
        layer.set_weights([waves(*shape, step=0.3 + i) for i, shape in enumerate(shapes(layer))])
        x, mask = waves(BATCH, TOKENS, WIDTH), layers.compute_causal_mask(BATCH, TOKENS, TOKENS)
        plain = layer(x, x, attention_mask=mask)
        out, scores = layer(x, x, attention_mask=mask, return_attention_scores=True)
        assert out.tolist() == plain.tolist()
        assert scores.shape == (BATCH, HEADS, TOKENS, TOKENS)
        assert_close(ops.sum(scores, -1), ops.ones_like(scores[..., 0]))
        assert ops.max(ops.where(ops.expand_dims(mask, 1), 0.0, scores)).item() == 0
        value, projection = layer.get_weights()[2:]
        for position in range(TOKENS):
            one = gw.tensor([[[float(i == position)] for i in range(TOKENS)]] * BATCH)
            alone = ops.mul(x, one)  # values of one position, keys of all
            of_values = layer(x, alone, key=x, attention_mask=mask)
            v = ops.matmul(alone, ops.reshape(value, (WIDTH, HEADS * 6)))[
                :, position : position + 1
            ]
            v = ops.reshape(v, (BATCH, 1, HEADS, 6))
            taken = ops.expand_dims(ops.transpose(scores[..., position], (0, 2, 1)), -1)
            mixed = ops.reshape(ops.mul(taken, v), (BATCH, TOKENS, HEADS * 6))
            assert_close(of_values, ops.matmul(mixed, ops.reshape(projection, (HEADS * 6, WIDTH))))
        cache = ops.mul(waves(BATCH, 2, TOKENS, HEADS, 6), 0)
        found = layer(x, x, None, mask, cache, 0, return_attention_scores=True)
        assert_close(found[1], scores)
        assert_close(found[2], layer(x, x, None, mask, cache, 0)[1])
        layer.dispose()


@pytest.mark.parametrize("dtype", ["float32", "float16", "q8", "q4"])
def test_weights_are_those_that_are_computed_with(dtype: str) -> None:
    """A float32 layer with the rounded weights gives the same, and rounding them changes none."""
    with gw.tidy():
        layer = decoder(normalize_first=True, dtype=dtype)
        rounded = layer.get_weights()
        exact = decoder(normalize_first=True)
        given = exact.get_weights()
        exact.set_weights(rounded)
        x = waves(BATCH, 1, WIDTH)
        assert_close(layer(x), exact(x), 0.2 if dtype in ("q8", "q4") else 2e-5)
        for i, (one, other) in enumerate(zip(rounded, given, strict=True)):
            tolerance = {"float32": 0.0, "float16": 5e-4, "q8": 0.004, "q4": 0.15}[dtype]
            is_matrix = layer.weight_names[i].endswith("kernel")
            assert_close(one, other, tolerance if is_matrix else 0.0)
        layer.dispose()
        exact.dispose()


LAYERS: dict[str, tuple[Any, Any]] = {
    "decoder": (lambda: decoder(normalize_first=True), (BATCH, TOKENS, WIDTH)),
    "attention": (lambda: layers.CachedMultiHeadAttention(2, 6, use_bias=False), (1, 3, 12)),
    "sizes": (
        lambda: layers.CachedMultiHeadAttention(2, 6, 5, output_shape=[3, 2]),
        (1, 3, 12),
    ),
    "position": (lambda: layers.PositionEmbedding(9, "normal"), (1, 3, 12)),
    "tied": (lambda: layers.ReversibleEmbedding(11, 12), ()),
    "untied": (lambda: layers.ReversibleEmbedding(11, 12, False, logit_soft_cap=2.0), ()),
    "both": (lambda: layers.TokenAndPositionEmbedding(11, 9, 12), ()),
    "norm": (lambda: layers.LayerNormalization(1e-3), (2, 12)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_made_again_from_configuration_and_weights(name: str) -> None:
    make, input_shape = LAYERS[name]
    with gw.tidy():
        layer = make()
        layer.build(input_shape)
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        again.build(input_shape)
        assert again.get_config() == layer.get_config()
        assert layer.weight_names and shapes(again) == shapes(layer)
        again.set_weights(layer.get_weights())
        for one, other in zip(again.get_weights(), layer.get_weights(), strict=True):
            assert one.tolist() == other.tolist()
        layer.dispose()
        again.dispose()
        again.dispose()
        with pytest.raises(DisposedTensorError, match="was disposed"):
            again.get_weights()


def test_a_layer_s_name_and_dtype_follow_keras() -> None:
    policy = {"class_name": "DTypePolicy", "config": {"name": "float16"}}
    layer = layers.TransformerDecoder(8, 2, dtype=policy)
    assert (layer.name, layer.dtype, layer.built) == ("transformer_decoder", "float16", False)
    assert layers.ReversibleEmbedding(3, 4, name="tokens").name == "tokens"
    assert layers.PositionEmbedding(3).name == "position_embedding"


def test_a_copy_has_its_own_weights() -> None:
    with gw.tidy():
        layer = decoder(normalize_first=True)
        copied = copy.deepcopy(layer)
        x = waves(1, 3, WIDTH)
        expected = layer(x).tolist()
        layer.dispose()
        assert copied(x).tolist() == expected
        copied.dispose()


def test_causal_masks() -> None:
    with gw.tidy():
        mask = layers.compute_causal_mask(2, 4, 2, cache_index=1)
        assert (mask.shape, mask.dtype) == ((2, 2, 4), "bool")
        assert mask.tolist() == [[[True, True, False, False], [True, True, True, False]]] * 2


def test_merged_masks() -> None:
    merge = layers.merge_padding_and_attention_mask
    padding, attention = [[1, 0]], [[[1, 1], [0, 1]]]
    with gw.tidy():
        x = gw.tensor([0.0])
        assert merge(x, None, None) is None
        for given in (padding, gw.tensor(padding), gw.tensor(padding, "bool")):
            found = merge(x, given, None)
            assert found is not None and found.tolist() == [[[True, False]]]
        found = merge(x, padding, attention)
        assert found is not None and found.tolist() == [[[True, False], [False, False]]]
        found = merge(x, None, attention)
        assert found is not None and found.tolist() == [[[True, True], [False, True]]]
        with pytest.raises(ShapeError, match=r"padding_mask must have the shape \[batch, keys\]"):
            merge(x, attention, None)


def test_ids_outside_of_the_vocabulary() -> None:
    """An error where Python sees them, else NaN."""
    with gw.tidy():
        token, position = layers.ReversibleEmbedding(3, 8), layers.PositionEmbedding(4)
        for wrong in ([[3]], [[-1]], [[True]], [[0.5]]):
            with pytest.raises(InvalidArgumentError, match="token id"):
                token(wrong)
        sums = ops.sum(token(gw.tensor([[2, 3, -1]], "int32")), -1).tolist()[0]
        assert [math.isnan(each) for each in sums] == [False, True, True]
        with pytest.raises(InvalidArgumentError, match="must be int32 or uint32"):
            token(gw.tensor([0.0]))
        x = waves(1, 3, 8)
        with pytest.raises(ContextLengthError, match="3 positions from 2 on exceed the 4"):
            position(x, start_index=2)
        token.dispose()
        position.dispose()


X = [[[0.5] * WIDTH] * 3]
MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "cross-attention": (lambda d: d(X, X), InvalidArgumentError, "was made without cross-att"),
    "cross cache": (lambda d: d(X, cross_attention_cache=0), InvalidArgumentError, "no cross-att"),
    "width": (lambda d: d([[[0.5] * (WIDTH - 2)]]), ShapeError, "made for another width"),
    "width, one more axis": (lambda d: d([[[0.5] * (WIDTH + 2)]]), ShapeError, "another width"),
    "width of a part": (
        lambda d: d.self_attention_layer([[[0.5] * 11]], [[[0.5] * 11]]), ShapeError, "another w",
    ),
    "a number": (lambda d: layers.LayerNormalization()(0.5), ShapeError, "inputs with an axis"),
    "config": (lambda d: type(d).from_config({"foo": 1}), InvalidArgumentError, "config"),
    "axes": (lambda d: d(X[0]), ShapeError, "takes inputs of 3 axes"),
    "cache shape": (
        lambda d: d(X, self_attention_cache=gw.tensor([1.0])), ShapeError, "a cache has the shape",
    ),
    "cache end": (
        lambda d: d(
            X, self_attention_cache=waves(1, 2, 4, HEADS, 6), self_attention_cache_update_index=2
        ),
        InvalidArgumentError, "cache_update_index",
    ),
    "cache of a model": (
        lambda d: d(
            X, self_attention_cache=KVCache(d.device, 1, 2, 4, HEADS, 6),
            self_attention_cache_update_index=0,
        ),
        ShapeError, "is not one of one layer",
    ),
    "cache and mask": (
        lambda d: d(
            X, self_attention_cache=KVCache(d.device, 1, 1, 4, HEADS, 6), use_causal_mask=False
        ),
        InvalidArgumentError, "a KVCache is for causal attention",
    ),
    "mask shape": (
        lambda d: d(X, decoder_padding_mask=[[1, 1]]), ShapeError, "padding_mask has shape",
    ),
    "activation": (
        lambda d: layers.TransformerDecoder(8, 2, activation="elu"), InvalidArgumentError, "'elu'",
    ),
    "initializer": (
        lambda d: layers.TransformerDecoder(8, 2, kernel_initializer="orthogonal"),
        InvalidArgumentError, "no initializer is called 'orthogonal'",
    ),
    "heads": (lambda d: layers.TransformerDecoder(8, 5)(X), ShapeError, "not a multiple of"),
    "no weights": (
        lambda d: layers.TransformerDecoder(8, 2).get_weights(), InvalidArgumentError, "call it",
    ),
    "weights": (lambda d: d.set_weights([X]), ShapeError, "has weights of shapes"),
    "list of weights": (lambda d: d.set_weights(5), InvalidArgumentError, "weights must be a list"),
    "scores of a KVCache": (
        lambda d: d.self_attention_layer(
            X, X, cache=KVCache(d.device, 1, 1, 4, HEADS, 6), cache_update_index=0,
            return_attention_scores=True,
        ),
        InvalidArgumentError, "without scores",
    ),
    "value size": (
        lambda d: layers.CachedMultiHeadAttention(2, 6, value_dim=0),
        InvalidArgumentError, "value_dim must be",
    ),
    "window": (
        lambda d: layers.CachedMultiHeadAttention(2, 6, sliding_window=4),
        InvalidArgumentError, "has no sliding_window",
    ),
    "index alone": (
        lambda d: d.self_attention_layer(X, X, cache_update_index=0),
        InvalidArgumentError, "without a cache",
    ),
    "logits in float16": (
        lambda d: layers.ReversibleEmbedding(3, 4, reverse_dtype="float16"), InvalidArgumentError,
        "reverse_dtype must be None or 'float32'",
    ),
    "a part's weights": (
        lambda d: d.self_attention_layer.set_weights(d.self_attention_layer.get_weights()),
        InvalidArgumentError, "shares the weights of a model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    call, error, message = MISTAKES[mistake]
    with gw.tidy():
        layer = decoder(normalize_first=True)
        with pytest.raises(error, match=message):
            call(layer)
        layer.dispose()


def test_one_layer_of_a_cache_shares_its_memory() -> None:
    with gw.tidy():
        layer, x = decoder(normalize_first=True), waves(1, 3, WIDTH)
        cache = KVCache(layer.device, 1, 2, 3, HEADS, WIDTH // HEADS)
        for _ in range(2):  # so that the memory of both is written
            for i in range(2):
                part = cache[:, i, ...]
                assert part.shape == (1, 1, 2, 3, HEADS, 6)
                layer(x * (i + 1), self_attention_cache=part, self_attention_cache_update_index=0)
        whole = cache.unpacked()
        for i in range(-2, 2):
            assert cache[:, i].unpacked().tolist() == whole[:, i : i + 1 or None].tolist()
        for key in (0, (0, 0), (slice(None), slice(None)), (slice(None), 2), (slice(None), 0, 0)):
            with pytest.raises(InvalidArgumentError, match=r"a cache is indexed|layer of a cache"):
                cache[key]
        layer.dispose()
