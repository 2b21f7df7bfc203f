"""Masks attached to tensors: made by embeddings, read and passed on by other layers."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import DisposedTensorError, ShapeError
from gpt2_wgpu.nn import KVCache
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("device", "no_leak"), pytest.mark.native("NumPy")]

IDS = [[5, 7, 3, 0, 0], [1, 0, 2, 4, 9]]
SEEN = [[True, True, True, False, False], [True, False, True, True, True]]
EMBEDDINGS: dict[str, Any] = {
    "tokens": lambda **given: layers.ReversibleEmbedding(11, 12, **given),
    "tokens and positions": lambda **given: layers.TokenAndPositionEmbedding(11, 9, 12, **given),
}


class Masked(np.ndarray):
    """An array that takes attributes."""

    _keras_mask: Any = None


def masked(values: np.ndarray, mask: Any) -> np.ndarray:
    found = values.view(Masked)
    found._keras_mask = mask
    return found


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("kind", ["lists", "array", "int32", "uint32"])
def test_an_embedding_attaches_its_mask(name: str, kind: str) -> None:
    ids: Any = np.array(IDS) if kind == "array" else IDS
    with gw.tidy():
        layer, plain = EMBEDDINGS[name](mask_zero=True), EMBEDDINGS[name]()
        ids = gw.tensor(IDS, kind) if kind.endswith("int32") else ids
        mask = layer.compute_mask(ids)
        assert (mask.dtype, mask.tolist()) == ("bool", SEEN)
        x = layer(ids)
        assert x._keras_mask.tolist() == SEEN
        assert layer(ids)[..., :3]._keras_mask is None  # as in Keras, other operations drop it
        assert plain.compute_mask(ids) is None and plain(ids)._keras_mask is None
        assert (layer.get_config()["mask_zero"], plain.get_config()["mask_zero"]) == (True, False)
        again = type(layer).from_config(layer.get_config())
        assert again.compute_mask(ids).tolist() == SEEN
        again.dispose()
        layer.dispose()
        plain.dispose()


def test_explicit_positions_keep_the_mask() -> None:
    with gw.tidy():
        layer = EMBEDDINGS["tokens and positions"](mask_zero=True)
        assert layer(IDS, positions=[4, 3, 2, 1, 0])._keras_mask.tolist() == SEEN
        layer.dispose()


@pytest.mark.parametrize("causal", [True, False], ids=["fused", "composed"])
def test_a_decoder_reads_the_mask_and_passes_it_on(causal: bool) -> None:
    """As if it were given; a mask that is given wins."""
    x = references.random(2, 5, 12)
    other = [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    with gw.tidy():
        layer = layers.TransformerDecoder(20, 2)
        wanted = layer(x, decoder_padding_mask=SEEN, use_causal_mask=causal)
        assert wanted._keras_mask is None
        for mask in (SEEN, np.array(SEEN), gw.tensor(SEEN, "bool"), gw.tensor(SEEN, "int32")):
            found = layer(masked(x, mask), use_causal_mask=causal)
            assert found.tolist() == wanted.tolist()
            assert found._keras_mask.tolist() == SEEN
        assert found.tolist() != layer(x, use_causal_mask=causal).tolist()
        given = layer(masked(x, SEEN), decoder_padding_mask=other, use_causal_mask=causal)
        plain = layer(x, decoder_padding_mask=other, use_causal_mask=causal)
        assert given.tolist() == plain.tolist()
        layer.dispose()


def test_an_encoder_s_mask_hides_its_positions() -> None:
    x, encoder = references.random(2, 3, 12), references.random(2, 5, 8, seed=4)
    with gw.tidy():
        layer = layers.TransformerDecoder(20, 2)
        found = layer(x, masked(encoder, SEEN))
        assert found.tolist() == layer(x, encoder, encoder_padding_mask=SEEN).tolist()
        assert found.tolist() != layer(x, encoder).tolist()
        assert found._keras_mask is None
        layer.dispose()


def test_masks_pass_through_a_stack() -> None:
    with gw.tidy():
        embed = EMBEDDINGS["tokens and positions"](mask_zero=True)
        blocks = [layers.TransformerDecoder(20, 2, normalize_first=True) for _ in range(2)]
        norm = layers.LayerNormalization()
        x = embed(IDS)
        y = gw.tensor(x.tolist())
        for block in blocks:
            x, y = block(x), block(y, decoder_padding_mask=SEEN)
        found = norm(x)
        assert found._keras_mask.tolist() == SEEN
        assert found.tolist() == norm(y).tolist()
        merged = layers.merge_padding_and_attention_mask(x, None, None)
        assert merged is not None and merged.tolist() == [[row] for row in SEEN]
        for layer in (embed, *blocks, norm):
            layer.dispose()


def test_a_mask_lives_as_long_as_its_tensor() -> None:
    """Also after the tensor that it came from; nothing is left behind."""
    embed, norm = EMBEDDINGS["tokens"](mask_zero=True), layers.LayerNormalization()
    embed.build(())
    norm.build((2, 5, 12))
    before = gw.memory().num_tensors
    x = embed(IDS)
    y = norm(x)
    mask = x._keras_mask
    x.dispose()
    with pytest.raises(DisposedTensorError):
        mask.tolist()
    assert y._keras_mask.tolist() == SEEN
    with gw.tidy() as scope:
        z = scope.escape(norm(y))
    y.dispose()
    assert z._keras_mask.tolist() == SEEN
    z.dispose()
    assert gw.memory().num_tensors == before
    norm(embed(IDS))
    gc.collect()
    gw.trim()
    assert gw.memory().num_tensors == before
    embed.dispose()
    norm.dispose()


def test_a_cache_needs_a_mask_of_all_its_positions() -> None:
    with gw.tidy():
        layer = layers.TransformerDecoder(20, 2)
        step: dict[str, Any] = {"self_attention_cache_update_index": 0}
        step["self_attention_cache"] = KVCache(layer.device, 2, 1, 8, 2, 6)
        x = masked(references.random(2, 5, 12), SEEN)
        with pytest.raises(ShapeError, match=r"padding_mask has shape \(2, 5\), not \(2, 8\)"):
            layer(x, **step)
        whole = [[*row, True, True, True] for row in SEEN]
        assert layer(x, decoder_padding_mask=whole, **step)[0]._keras_mask.tolist() == SEEN
        layer.dispose()
