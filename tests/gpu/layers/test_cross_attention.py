"""Cross-attention of layers: against NumPy, its caches, weights, configuration and errors."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [
    pytest.mark.usefixtures("device", "no_leak"),
    pytest.mark.native("NumPy"),
]

WIDTH, ENCODER, HEADS, INNER = 12, 10, 2, 20  # heads of 6: all axes are padded in memory
EPSILON = 1e-3


def decoder(encoder: int = ENCODER, **config: Any) -> layers.TransformerDecoder:
    layer = layers.TransformerDecoder(
        INNER, HEADS, activation="relu", layer_norm_epsilon=EPSILON, **config
    )
    layer.build((None, None, WIDTH), (None, None, encoder))
    weights = [
        references.random(*shape, seed=seed)
        for seed, shape in enumerate(layer.weight_shapes.values())
    ]
    layer.set_weights(weights)
    return layer


def expected(
    layer: layers.TransformerDecoder, x: np.ndarray, encoder: np.ndarray, mask: Any = None
) -> np.ndarray:
    """The block in float64; ``mask`` [B, T or 1, S] of cross-attention."""
    values = [weight.numpy().astype(float) for weight in layer.get_weights()]
    weights = dict(zip(layer.weight_names, values, strict=True))
    first = layer.normalize_first

    def norm(name: str, y: np.ndarray) -> Any:
        scaled = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + EPSILON)
        return scaled * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    def attend(name: str, y: np.ndarray, source: np.ndarray, **seen: Any) -> Any:
        q, k, v = (
            np.einsum("btd,dhe->bthe", given, weights[f"{name}/{part}/kernel"])
            + weights[f"{name}/{part}/bias"]
            for part, given in (("query", y), ("key", source), ("value", source))
        )
        mixed = references.attention(q, k, v, **seen)
        output = f"{name}/attention_output"
        kernel, bias = weights[f"{output}/kernel"], weights[f"{output}/bias"]
        return np.einsum("bthe,hed->btd", mixed, kernel) + bias

    def feed_forward(y: np.ndarray) -> Any:
        hidden = y @ weights["feedforward_intermediate_dense/kernel"]
        hidden = np.maximum(hidden + weights["feedforward_intermediate_dense/bias"], 0)
        kernel, bias = (weights[f"feedforward_output_dense/{part}"] for part in ("kernel", "bias"))
        return hidden @ kernel + bias

    def residual(name: str, y: np.ndarray, part: Any) -> Any:
        return y + part(norm(name, y)) if first else norm(name, y + part(y))

    seen = None if mask is None else np.asarray(mask)[:, None]
    y = np.asarray(x, float)
    y = residual(
        "self_attention_layer_norm", y, lambda y: attend("self_attention", y, y, causal=True)
    )
    y = residual(
        "cross_attention_layer_norm", y,
        lambda y: attend("cross_attention", y, np.asarray(encoder, float), mask=seen),
    )  # fmt: skip
    return np.asarray(residual("feedforward_layer_norm", y, feed_forward))


def assert_close(found: gw.Tensor, wanted: Any) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
@pytest.mark.parametrize(
    ("batch", "tokens", "length"), [(1, 1, 1), (2, 5, 7), (3, 1, 65), (1, 66, 3), (2, 33, 129)]
)
@pytest.mark.usefixtures("guarded")
def test_against_numpy(first: bool, batch: int, tokens: int, length: int) -> None:
    """Without a mask, with a padding mask, and with an attention mask, which has other kernels."""
    x = references.random(batch, tokens, WIDTH)
    encoder = references.random(batch, length, ENCODER, seed=99)
    padding = references.random(batch, length, seed=5) > -0.3
    attention = references.random(batch, tokens, length, seed=6) > -0.3
    with gw.tidy():
        layer = decoder(normalize_first=first)
        assert_close(layer(x, encoder), expected(layer, x, encoder))
        found = layer(x, encoder, encoder_padding_mask=padding)
        assert_close(found, expected(layer, x, encoder, padding[:, None]))
        found = layer(x, encoder, encoder_padding_mask=padding, encoder_attention_mask=attention)
        assert_close(found, expected(layer, x, encoder, attention & padding[:, None]))
        layer.dispose()


@pytest.mark.parametrize("kind", ["tensor", "KVCache"])
def test_caches_continue_a_sequence(kind: str) -> None:
    """The encoder's keys and values are computed once; later calls do not look at its values."""
    x, encoder = references.random(2, 5, WIDTH), references.random(2, 7, ENCODER, seed=99)
    padding = np.array([[1] * 7, [1, 0, 1, 1, 1, 0, 0]])
    with gw.tidy():
        layer = decoder(normalize_first=True)

        def new_cache(positions: int) -> gw.Tensor:
            if kind == "KVCache":
                return KVCache(layer.device, 2, 1, positions, HEADS, WIDTH // HEADS)
            return gw.tensor(np.zeros((2, 2, positions, HEADS, WIDTH // HEADS), np.float32))

        own, cross, index = new_cache(5), new_cache(7), 0
        found = []
        for first, last in ((0, 2), (2, 3), (3, 5)):
            y, own, cross = layer(
                x[:, first:last], encoder, encoder_padding_mask=padding,
                self_attention_cache=own, self_attention_cache_update_index=first,
                cross_attention_cache=cross, cross_attention_cache_update_index=index,
            )  # fmt: skip
            found.append(y)
            index = None  # type: ignore[assignment]
        whole = expected(layer, x, encoder, padding[:, None])
        assert_close(ops.concat(found, axis=1), whole)
        layer.dispose()


def test_a_scale_is_that_of_both_attentions() -> None:
    x, encoder = references.random(1, 3, WIDTH), references.random(1, 4, ENCODER, seed=9)
    with gw.tidy():
        scaled, plain = decoder(scale=0.9), decoder()
        weights = plain.get_weights()
        for i, name in enumerate(plain.weight_names):
            if "query" in name:  # the scale multiplies what the queries give
                weights[i] = weights[i] * (0.9 * math.sqrt(WIDTH // HEADS))
        plain.set_weights(weights)
        assert_close(scaled(x, encoder), plain(x, encoder).numpy())
        assert scaled.get_config()["scale"] == 0.9
        scaled.dispose()
        plain.dispose()


@pytest.mark.parametrize("dtype", ["float16", "q8", "q4"])
def test_weights_are_those_that_are_computed_with(dtype: str) -> None:
    x, encoder = references.random(1, 1, WIDTH), references.random(1, 3, ENCODER, seed=9)
    with gw.tidy():
        layer, exact = decoder(dtype=dtype, normalize_first=True), decoder(normalize_first=True)
        exact.set_weights(layer.get_weights())
        tolerance = 0.2 if dtype in ("q8", "q4") else 1e-3
        found, wanted = layer(x, encoder).numpy(), exact(x, encoder).numpy()
        np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
        layer.dispose()
        exact.dispose()


def test_a_layer_is_made_again_from_configuration_and_weights() -> None:
    x, encoder = references.random(1, 3, WIDTH), references.random(1, 4, ENCODER, seed=9)
    with gw.tidy():
        layer = decoder(normalize_first=True)
        again = layers.TransformerDecoder.from_config(json.loads(json.dumps(layer.get_config())))
        assert again.built and again.get_config() == layer.get_config()
        assert again.weight_names == layer.weight_names and len(layer.weight_names) == 26
        again.set_weights(layer.get_weights())
        assert again(x, encoder).tolist() == layer(x, encoder).tolist()
        layer.dispose()
        again.dispose()


def test_attention_to_a_sequence_of_another_width() -> None:
    """The first call makes the weights; scores and masks are as of one width."""
    x, source = references.random(2, 3, WIDTH), references.random(2, 4, ENCODER, seed=9)
    with gw.tidy():
        layer = layers.CachedMultiHeadAttention(HEADS, 6)
        mask = [[[1, 1, 0, 1]] * 3, [[1, 0, 0, 0]] * 3]
        found, scores = layer(x, source, attention_mask=mask, return_attention_scores=True)
        assert found.shape == (2, 3, WIDTH) and scores.shape == (2, HEADS, 3, 4)
        assert layer.weight_shapes["query/kernel"] == (WIDTH, HEADS, 6)
        assert layer.weight_shapes["value/kernel"] == (ENCODER, HEADS, 6)
        np.testing.assert_allclose(scores.numpy().sum(-1), 1, atol=1e-5)
        assert not scores.numpy()[0, :, :, 2].any()
        np.testing.assert_allclose(scores.numpy()[1, :, :, 0], 1)
        with pytest.raises(ShapeError, match=r"widths \(10, 10\), not from keys \[2, 3, 12\]"):
            layer(x, x)
        with pytest.raises(ShapeError, match=r"keys \[2, 2, 10\] for values \[2, 4, 10\]"):
            layer(x, source, source[:, :2])
        layer.dispose()


@pytest.mark.parametrize(
    ("value_dim", "widths", "output_shape"),
    [(5, (12, 12), None), (6, (10, 12), None), (16, (9, 10), 7), (1, (12, 10), (3, 1, 5))],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("guarded")
def test_all_sizes_may_differ(
    value_dim: int, widths: tuple[int, int], output_shape: Any, bias: bool
) -> None:
    x = references.random(2, 33, WIDTH)
    k, v = (references.random(2, 65, width, seed=seed) for seed, width in enumerate(widths))
    with gw.tidy():
        layer = layers.CachedMultiHeadAttention(
            HEADS, 6, value_dim, use_bias=bias, output_shape=output_shape
        )
        layer.build(query_shape=x.shape, value_shape=v.shape, key_shape=k.shape)
        given = [
            references.random(*shape, seed=seed)
            for seed, shape in enumerate(layer.weight_shapes.values())
        ]
        layer.set_weights(given)
        weights = dict(zip(layer.weight_names, given, strict=True))
        for name, found in zip(layer.weight_names, layer.get_weights(), strict=True):
            assert_close(found, weights[name])

        def projected(name: str, of: np.ndarray) -> Any:
            heads = np.einsum("btd,dhe->bthe", of, weights[f"{name}/kernel"])
            return heads + weights.get(f"{name}/bias", 0)

        q, keys, values = projected("query", x), projected("key", k), projected("value", v)
        mixed = references.attention(q, keys, values)
        wanted = np.tensordot(mixed, weights["attention_output/kernel"], 2)
        wanted = wanted + weights.get("attention_output/bias", 0)
        found = layer(x, v, k)
        assert found.shape == layer.compute_output_shape(x.shape, v.shape, k.shape)
        assert_close(found, wanted)
        with pytest.raises(InvalidArgumentError, match=r"keys and values of one size|KVCache is"):
            layer(x, v, k, cache=layer_cache(layer, value_dim))
        layer.dispose()


def layer_cache(layer: Any, value_dim: int) -> gw.Tensor:
    """A cache that the layer cannot use: a tensor, or with equal heads a KVCache."""
    if value_dim == 6:
        return KVCache(layer.device, 2, 1, 65, HEADS, 6)
    return gw.tensor(np.zeros((2, 2, 65, HEADS, 6), np.float32))


def test_the_shape_of_a_result_is_known_before() -> None:
    layer = layers.CachedMultiHeadAttention(2, 6)
    assert layer.compute_output_shape((None, None, 12), [None, 7, 10]) == (None, None, 12)
    for shapes in (((2, 5, 12), (2, 7, 10), (2, 6, 10)), ((2, 5, 12), (2, 7, 3, 10))):
        with pytest.raises(ShapeError, match=r"each must be \[batch, positions, width\]"):
            layer.compute_output_shape(*shapes)


X, E = np.zeros((1, 3, WIDTH), np.float32), np.zeros((1, 4, ENCODER), np.float32)
MASK = np.ones((1, 4), int)


def caches(layer: Any, positions: int = 4, rows: int = 1) -> dict[str, Any]:
    own, cross = (
        KVCache(layer.device, rows, 1, size, HEADS, WIDTH // HEADS) for size in (3, positions)
    )
    return {
        "self_attention_cache": own,
        "self_attention_cache_update_index": 0,
        "cross_attention_cache": cross,
        "cross_attention_cache_update_index": 0,
    }


MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "no encoder": (lambda d: d(X), InvalidArgumentError, "has cross-attention: pass encoder_seq"),
    "width": (lambda d: d(X, E[..., :8]), ShapeError, "of width 10, not"),
    "rows": (lambda d: d(X, np.concatenate([E, E])), ShapeError, "2 encoder sequences for 1 deco"),
    "axes": (lambda d: d(X, E[0]), ShapeError, "takes inputs of 3 axes"),
    "one cache": (
        lambda d: d(X, E, cross_attention_cache=caches(d)["cross_attention_cache"]),
        InvalidArgumentError, "must both be given or neither",
    ),
    "mask": (
        lambda d: d(X, E, encoder_padding_mask=MASK[:, :3]), ShapeError,
        "encoder_padding_mask has shape",
    ),
    "mask of positions": (
        lambda d: d(X, E, encoder_attention_mask=MASK), ShapeError, "must have the shape",
    ),
    "attention mask of a KVCache": (
        lambda d: d(X, E, encoder_attention_mask=MASK[None], **caches(d)),
        InvalidArgumentError, "takes an encoder_padding_mask",
    ),
    "length": (lambda d: d(X, E, **caches(d, 5)), ShapeError, "4 positions for a cache of 5"),
    "cache of other rows": (
        lambda d: d(X, E, **caches(d) | {
            "cross_attention_cache": caches(d, 4, 2)["cross_attention_cache"]
        }),
        ShapeError, "is not one of one layer",
    ),
    "index": (
        lambda d: d(X, E, **caches(d) | {"cross_attention_cache_update_index": 1}),
        InvalidArgumentError, "cross_attention_cache_update_index",
    ),
    "index alone": (
        lambda d: d(X, E, cross_attention_cache_update_index=0), InvalidArgumentError,
        "without a cache",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    call, error, message = MISTAKES[mistake]
    with gw.tidy():
        layer = decoder()
        with pytest.raises(error, match=message):
            call(layer)
        layer.dispose()


def test_a_failed_first_call_leaves_the_layer_as_it_was() -> None:
    with gw.tidy():
        layer = layers.TransformerDecoder(8, 5)
        with pytest.raises(ShapeError, match="not a multiple of num_heads 5"):
            layer(X, E)
        layer(references.random(1, 3, 10))  # without cross-attention
        assert not any("cross" in name for name in layer.weight_names)
        layer.dispose()
