"""Layers: shapes, counts and assignment of weights."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import InvalidArgumentError
from tests.gpu.layers.test_layers import HEADS, TOKENS, WIDTH, waves

pytestmark = pytest.mark.usefixtures("device", "no_leak")


def test_shapes_of_the_arguments_build_a_layer() -> None:
    """By the names of a call's arguments, as in Keras."""
    with gw.tidy():
        attention = layers.CachedMultiHeadAttention(HEADS, 6)
        attention.build(query_shape=(1, 4, WIDTH), value_shape=(1, 3, WIDTH))
        block = layers.TransformerDecoder(20, HEADS)
        block.build(decoder_sequence_shape=(None, None, WIDTH))
        both = layers.TokenAndPositionEmbedding(7, 5, WIDTH)
        both.build(inputs_shape=(None, None))
        for layer in (attention, block, both):
            count = sum(weight.size for weight in layer.get_weights())
            assert layer.count_params() == count > 0
            layer.dispose()
        with pytest.raises(InvalidArgumentError, match="needs a shape"):
            layers.PositionEmbedding(5).build()
        with pytest.raises(InvalidArgumentError, match="not width"):
            layers.PositionEmbedding(5).build(width=(1, 2))


def test_a_table_of_positions_may_be_assigned() -> None:
    with gw.tidy():
        layer, x = layers.PositionEmbedding(TOKENS), waves(1, TOKENS, WIDTH)
        before = layer(x)
        assert layer.position_embeddings.tolist() == before.tolist()[0]
        layer.position_embeddings = x[0]
        assert layer(x).tolist() == x.tolist() != before.tolist()
        layer.dispose()
