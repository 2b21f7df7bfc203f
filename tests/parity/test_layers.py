"""Layers against the recorded values of KerasHub's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.nn import KVCache
from tests.parity import cases

pytestmark = [pytest.mark.native("NumPy"), pytest.mark.usefixtures("device", "no_leak")]

RECORDED = cases.recorded("keras_layers")
GIVEN = {name: np.array(values) for name, values in RECORDED["inputs"].items()}
X = GIVEN["x"].astype(np.float32)
CACHE = GIVEN["cache"].astype(np.float32)
DECODERS: dict[str, Any] = {
    "norm last": {"activation": "relu"},
    "norm first": {"activation": "gelu", "normalize_first": True},
}


def assert_close(found: Any, expected: Any) -> None:
    found = found.numpy()
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-5)


def with_weights(layer: Any, weights: Any, input_shape: Any = (2, 5, 12)) -> Any:
    layer.build(input_shape)
    layer.set_weights(weights)
    return layer


@pytest.mark.parametrize("name", DECODERS)
def test_a_transformer_decoder_equals_keras_hub_s(name: str) -> None:
    expected = RECORDED[name]
    padding, attention = GIVEN["padding_mask"], GIVEN["attention_mask"]
    with gw.tidy():
        layer = layers.TransformerDecoder(20, 2, layer_norm_epsilon=1e-3, **DECODERS[name])
        with_weights(layer, expected["weights"])
        assert layer.weight_names == expected["names"]
        assert_close(layer(X), expected["plain"])
        assert_close(layer(X, decoder_padding_mask=padding), expected["padded"])
        masked = layer(X, decoder_padding_mask=padding, decoder_attention_mask=attention)
        assert_close(masked, expected["masked"])
        assert_close(layer(X, use_causal_mask=False), expected["not causal"])
        cache = gw.tensor(CACHE)
        step: dict[str, Any] = {"self_attention_cache": cache}
        step["self_attention_cache_update_index"] = 3
        for found, value in zip(layer(X[:, :2], **step), expected["cached"], strict=True):
            assert_close(found, value)
        assert_close(cache, CACHE)  # not changed
        layer.dispose()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_with_cross_attention_equals_keras_hub_s(name: str) -> None:
    """With tensors as caches, and with KVCaches, which take other kernels."""
    expected = RECORDED[f"cross, {name}"]
    encoder = np.array(expected["encoder"], np.float32)
    padding = {"encoder_padding_mask": expected["encoder_padding_mask"]}
    attention = {"encoder_attention_mask": expected["encoder_attention_mask"]}
    with gw.tidy():
        layer = layers.TransformerDecoder(20, 2, layer_norm_epsilon=1e-3, **DECODERS[name])
        layer.build((2, 5, 12), encoder.shape)
        layer.set_weights(expected["weights"])
        assert layer.weight_names == expected["names"]
        assert_close(layer(X, encoder), expected["plain"])
        assert_close(layer(X, encoder, **padding), expected["padded"])
        assert_close(layer(X, encoder, **padding, **attention), expected["masked"])
        empty = gw.tensor(CACHE)
        step: dict[str, Any] = {"self_attention_cache": empty, "cross_attention_cache": empty}
        step |= {"self_attention_cache_update_index": 3, "cross_attention_cache_update_index": 0}
        written = layer(X[:, :2], encoder, **step)
        assert_all_close(written, expected["written"])
        assert_close(empty, CACHE)  # not changed
        step = {"self_attention_cache": written[1], "self_attention_cache_update_index": 5}
        step |= {"cross_attention_cache": written[2]}
        assert_all_close(layer(X[:, 2:4], encoder, **padding, **step), expected["read"])
        fast = KVCache(layer.device, 2, 1, 7, 2, 6)
        step |= {"cross_attention_cache": fast, "cross_attention_cache_update_index": 0}
        for _ in range(2):  # the cache is written, then only read
            read = layer(X[:, 2:4], encoder, **padding, **step)
            assert read[2] is fast
            assert_all_close(read[:2], expected["read"][:2])
            step["cross_attention_cache_update_index"] = None
            encoder = np.zeros_like(encoder)
        assert_close(fast.unpacked().view(CACHE.shape), expected["written"][2])
        layer.dispose()


def assert_all_close(found: Any, expected: Any) -> None:
    for each, value in zip(found, expected, strict=True):
        assert_close(each, value)


def test_attention_equals_keras_hub_s() -> None:
    expected = RECORDED["attention"]
    with gw.tidy():
        layer = with_weights(layers.CachedMultiHeadAttention(2, 6), expected["weights"])
        x, cache = gw.tensor(X), gw.tensor(CACHE)
        assert_close(layer(x, x), expected["plain"])
        mask = GIVEN["attention_mask"]
        assert_close(layer(X, X, attention_mask=mask), expected["masked"])
        scores = layer(x, x, attention_mask=mask, return_attention_scores=True)[1]
        assert_close(scores, expected["scores"])
        assert_close(layer(x, GIVEN["other"]), expected["other"])
        step = layer(x[:, :2], x[:, :2], cache=cache, cache_update_index=1)
        for found, value in zip(step, expected["cached"], strict=True):
            assert_close(found, value)
        assert_close(layer(x[:, :2], x[:, :2], cache=cache)[0], expected["read"])
        layer.dispose()


def test_attention_to_another_width_equals_keras_hub_s() -> None:
    expected = RECORDED["cross-attention"]
    key, value = (np.array(expected[name], np.float32) for name in ("key", "value"))
    with gw.tidy():
        layer = layers.CachedMultiHeadAttention(2, 6)
        layer.build(query_shape=X.shape, value_shape=value.shape)
        layer.set_weights(expected["weights"])
        assert_close(layer(X, value, key), expected["found"])
        for found, given in zip(layer.get_weights(), expected["weights"], strict=True):
            assert_close(found, given)
        layer.dispose()


def test_attention_of_other_sizes_equals_keras_hub_s() -> None:
    expected = RECORDED["sizes"]
    key, value = (np.array(expected[name], np.float32) for name in ("key", "value"))
    with gw.tidy():
        layer = layers.CachedMultiHeadAttention(2, 6, value_dim=5, output_shape=(3, 2))
        layer.build(query_shape=X.shape, value_shape=value.shape, key_shape=key.shape)
        layer.set_weights(expected["weights"])
        assert layer.weight_names == expected["names"]
        found = layer(X, value, key, attention_mask=expected["mask"])
        assert_close(found, expected["found"])
        assert found.shape == layer.compute_output_shape(X.shape, value.shape, key.shape)
        for found, given in zip(layer.get_weights(), expected["weights"], strict=True):
            assert_close(found, given)
        layer.dispose()


def test_embeddings_equal_keras_hub_s() -> None:
    expected = RECORDED["embeddings"]
    weights, ids = expected["weights"], GIVEN["ids"]
    with gw.tidy():
        position = with_weights(layers.PositionEmbedding(9), weights["position"])
        assert_close(position(X), expected["position"])
        assert_close(position(X, start_index=3), expected["later position"])
        assert_close(position(X, positions=GIVEN["positions"]), expected["positions"])
        token = {
            name: with_weights(
                layers.ReversibleEmbedding(11, 12, tie_weights=name == "tied"), weights[name]
            )
            for name in ("tied", "untied")
        }
        for name, layer in token.items():
            assert_close(layer(ids), expected[name][0])
            assert_close(layer(X, reverse=True), expected[name][1])
        both = with_weights(layers.TokenAndPositionEmbedding(11, 9, 12), weights["both"])
        assert_close(both(gw.tensor(ids, "int32"), start_index=4), expected["both"])
        for layer in (position, *token.values(), both):
            layer.dispose()
