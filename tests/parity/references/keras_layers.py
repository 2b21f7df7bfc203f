"""KerasHub's layers with small weights: results for each kind of mask and cache."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import keras_hub
import numpy as np
from keras_hub import layers

_RANDOM = np.random.default_rng(12)


def values() -> dict[str, Any]:
    """Inputs, weights and results of each layer."""
    x = numbers(2, 5, 12)
    given = {
        "x": x,
        "other": numbers(2, 3, 12),
        "padding_mask": np.array([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]]),
        "attention_mask": np.maximum(_RANDOM.integers(0, 2, (2, 5, 5)), np.eye(5, dtype=int)),
        "cache": numbers(2, 2, 7, 2, 6),
        "ids": np.array([[1, 5, 10], [0, 0, 3]]),
        "positions": np.array([4, 2, 0, 8, 8]),
    }
    return {
        "version": keras_hub.__version__,
        "inputs": given,
        "norm last": decoder(given, activation="relu"),
        "norm first": decoder(given, activation="gelu", normalize_first=True),
        "attention": attention(given),
        "embeddings": embeddings(given),
        "cross, norm last": cross_decoder(given, activation="relu"),
        "cross, norm first": cross_decoder(given, activation="gelu", normalize_first=True),
        "cross-attention": cross_attention(given),
        "sizes": sizes(given),
    }


def numbers(*shape: int) -> np.ndarray:
    """Numbers with one decimal, which are short in JSON and equal in all dtypes."""
    return (_RANDOM.integers(-9, 10, shape) / 10).astype("float32")


def with_weights(layer: Any, input_shape: Any) -> list[np.ndarray]:
    """The weights that a layer is given."""
    layer.build(*input_shape)
    weights = [numbers(*weight.shape) for weight in layer.weights]
    layer.set_weights(weights)
    return weights


def decoder(given: dict[str, Any], **config: Any) -> dict[str, Any]:
    layer = layers.TransformerDecoder(20, 2, layer_norm_epsilon=1e-3, **config)
    weights = with_weights(layer, [(None, None, 12)])
    x, padding, attention = given["x"], given["padding_mask"], given["attention_mask"]
    step = {"self_attention_cache": given["cache"], "self_attention_cache_update_index": 3}
    return {
        "weights": weights,
        "names": [weight.path.partition("/")[2] for weight in layer.weights],
        "plain": array(layer(x)),
        "padded": array(layer(x, decoder_padding_mask=padding)),
        "masked": array(layer(x, decoder_padding_mask=padding, decoder_attention_mask=attention)),
        "not causal": array(layer(x, use_causal_mask=False)),
        "cached": [array(each) for each in layer(x[:, :2], **step)],
    }


def cross_decoder(given: dict[str, Any], **config: Any) -> dict[str, Any]:
    """The encoder's sequence is longer and narrower than the decoder's."""
    layer = layers.TransformerDecoder(20, 2, layer_norm_epsilon=1e-3, **config)
    weights = with_weights(layer, [(None, None, 12), (None, None, 10)])
    x, encoder = given["x"], numbers(2, 7, 10)
    padding = np.array([[1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0]])
    attention = np.maximum(_RANDOM.integers(0, 2, (2, 5, 7)), np.eye(5, 7, dtype=int))
    masks = {"encoder_padding_mask": padding, "encoder_attention_mask": attention}
    caches = {"self_attention_cache": given["cache"], "cross_attention_cache": given["cache"]}
    write = {"self_attention_cache_update_index": 3, "cross_attention_cache_update_index": 0}
    written = layer(x[:, :2], encoder, **caches, **write)
    return {
        "weights": weights,
        "names": [weight.path.partition("/")[2] for weight in layer.weights],
        "encoder": encoder,
        **masks,
        "plain": array(layer(x, encoder)),
        "padded": array(layer(x, encoder, encoder_padding_mask=padding)),
        "masked": array(layer(x, encoder, **masks)),
        "written": [array(each) for each in written],
        "read": [
            array(each)
            for each in layer(
                x[:, 2:4], encoder, encoder_padding_mask=padding,
                self_attention_cache=written[1], self_attention_cache_update_index=5,
                cross_attention_cache=written[2],
            )
        ],
    }  # fmt: skip


def cross_attention(given: dict[str, Any]) -> dict[str, Any]:
    """Queries of another width than keys and values."""
    layer = layers.CachedMultiHeadAttention(2, 6)
    weights = with_weights(layer, [(2, 5, 12), (2, 7, 10)])
    key, value = numbers(2, 7, 10), numbers(2, 7, 10)
    return {
        "weights": weights,
        "key": key,
        "value": value,
        "found": array(layer(given["x"], value, key)),
    }


def sizes(given: dict[str, Any]) -> dict[str, Any]:
    """Heads and widths of queries, keys, values and result that all differ."""
    layer = layers.CachedMultiHeadAttention(2, 6, value_dim=5, output_shape=(3, 2))
    key, value = numbers(2, 4, 9), numbers(2, 4, 10)
    weights = with_weights(layer, [given["x"].shape, value.shape, key.shape])
    mask = np.maximum(_RANDOM.integers(0, 2, (2, 5, 4)), np.eye(5, 4, dtype=int))
    found = layer(given["x"], value, key, attention_mask=mask)
    return {
        "weights": weights,
        "names": [weight.path.partition("/")[2] for weight in layer.weights],
        "key": key,
        "value": value,
        "mask": mask,
        "found": array(found),
    }


def attention(given: dict[str, Any]) -> dict[str, Any]:
    layer = layers.CachedMultiHeadAttention(2, 6)
    weights = with_weights(layer, [(2, 5, 12), (2, 5, 12)])
    x, cache = given["x"], given["cache"]
    return {
        "weights": weights,
        "plain": array(layer(x, x)),
        "masked": array(layer(x, x, attention_mask=given["attention_mask"])),
        "scores": array(
            layer(x, x, attention_mask=given["attention_mask"], return_attention_scores=True)[1]
        ),
        "other": array(layer(x, given["other"])),
        "cached": [array(y) for y in layer(x[:, :2], x[:, :2], cache=cache, cache_update_index=1)],
        "read": array(layer(x[:, :2], x[:, :2], cache=cache)[0]),
    }


def embeddings(given: dict[str, Any]) -> dict[str, Any]:
    position = layers.PositionEmbedding(9)
    tied, untied = (layers.ReversibleEmbedding(11, 12, tie_weights=tie) for tie in (True, False))
    both = layers.TokenAndPositionEmbedding(11, 9, 12)
    weights = {
        "position": with_weights(position, [(None, None, 12)]),
        "tied": with_weights(tied, []),
        "untied": with_weights(untied, []),
        "both": with_weights(both, [(1, 3)]),
    }
    x, ids = given["x"], given["ids"]
    return {
        "weights": weights,
        "position": array(position(x)),
        "later position": array(position(x, start_index=3)),
        "positions": array(position(x, positions=given["positions"])),
        "tied": [array(tied(ids)), array(tied(x, reverse=True))],
        "untied": [array(untied(ids)), array(untied(x, reverse=True))],
        "both": array(both(ids, start_index=4)),
    }


def array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
