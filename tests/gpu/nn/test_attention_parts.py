"""Attention in parts, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import (
    KVCache,
    Raw,
    attention_scores,
    load_matrix,
    mix_values,
    project_heads,
    store_keys_and_values,
)
from gpt2_wgpu.webgpu.waiting import sync
from tests.gpu import references
from tests.gpu.nn.test_cached_attention import filled_cache

pytestmark = pytest.mark.native("NumPy")

SIZES = [(1, 1, 1, 1, 1), (2, 3, 2, 20, 129), (3, 2, 1, 10, 7), (1, 33, 3, 64, 40)]
DTYPES = pytest.mark.parametrize("cache_dtype", ["float32", "float16"])


def parts(device, batch, heads, dim, length, cache_dtype):
    """Keys, values and a cache of them, behind a layer of NaN."""
    k, v = (
        references.random(batch, length, heads, dim, seed=s).astype(cache_dtype).astype(np.float32)
        for s in (1, 2)
    )
    return k, v, filled_cache(device, k, v, layers=2, layer=1, cache_dtype=cache_dtype)


def seen(batch, tokens, length):
    """Positions of the first tokens, and whether [B, 1, T, S] a token sees a position."""
    start = [max(0, length - tokens - row) for row in range(batch)]
    places = np.asarray(start)[:, None] + np.arange(tokens)
    return start, np.arange(length) <= places[:, None, :, None]


@DTYPES
@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize(("batch", "tokens", "heads", "dim", "length"), SIZES, ids=str)
@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.chromium_cases("cache_dtype", "is_masked")
def test_scores(device, batch, tokens, heads, dim, length, cache_dtype, is_masked):
    q = references.random(batch, tokens, heads, dim)
    start, visible = seen(batch, tokens, length)
    with gw.tidy():
        k, _, cache = parts(device, batch, heads, dim, length, cache_dtype)
        padded = np.zeros((batch, tokens, heads, cache.padded_dim), np.float32)
        padded[..., :dim] = q
        shown = np.arange(batch * cache.capacity).reshape(batch, -1) % 3 > 0
        mask = gw.tensor(shown.astype("u4"), "uint32") if is_masked else None
        found = attention_scores(
            gw.tensor(padded.reshape(batch, tokens, -1)), cache, 1, gw.tensor(start, "uint32"),
            scale=0.3, mask=mask,
        ).numpy()  # fmt: skip
    expected = np.einsum("bthd,bshd->bhts", q, k) * 0.3
    if is_masked:
        expected = np.where(shown[:, None, None, :length], expected, -1e9)
    expected = np.where(visible, expected, -3e38)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@DTYPES
@pytest.mark.parametrize(("batch", "tokens", "heads", "dim", "length"), SIZES, ids=str)
@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.chromium_cases("cache_dtype")
def test_weighted_values(device, batch, tokens, heads, dim, length, cache_dtype):
    pattern = references.random(batch, heads, tokens, length)
    start, visible = seen(batch, tokens, length)
    with gw.tidy():
        _, v, cache = parts(device, batch, heads, dim, length, cache_dtype)
        found = mix_values(gw.tensor(pattern), cache, 1, gw.tensor(start, "uint32")).numpy()
        found = found.reshape(batch, tokens, heads, cache.padded_dim)
    expected = np.einsum("bhts,bshd->bthd", np.where(visible, pattern, 0), v)
    assert not found[..., dim:].any()
    np.testing.assert_allclose(found[..., :dim], expected, rtol=1e-4, atol=1e-5)


@DTYPES
@pytest.mark.parametrize(("batch", "tokens", "heads", "dim", "length"), SIZES, ids=str)
@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.chromium_cases("cache_dtype")
def test_stored_keys_and_values(device, batch, tokens, heads, dim, length, cache_dtype):
    """Positions around them keep what they had, and one past the capacity is dropped."""
    new = [references.random(batch, tokens, heads, dim, seed=s) for s in (3, 4)]
    start, _ = seen(batch, tokens, length)
    with gw.tidy():
        k, v, cache = parts(device, batch, heads, dim, length, cache_dtype)
        whole = cache.first_rows(batch)
        padded = [np.zeros((batch, tokens, heads, cache.padded_dim), np.float32) for _ in new]
        for x, plain in zip(padded, new, strict=True):
            x[..., :dim] = plain
        keys, values = (gw.tensor(x) for x in padded)
        store_keys_and_values(keys, values, whole, 1, gw.tensor(start, "uint32"))
        past = gw.tensor([cache.capacity] * batch, "uint32")
        store_keys_and_values(keys, values, whole, 1, past)
        found = cache.numpy()[:, 1]
    for part, (x, old) in enumerate(zip(new, (k, v), strict=True)):
        expected = old.copy()
        for row, first in enumerate(start):
            end = min(first + tokens, length)
            expected[row, first:end] = x[row, : end - first]
        expected = expected.astype(cache_dtype).astype(np.float32)
        np.testing.assert_allclose(found[:, part], expected, rtol=1e-3 * (cache_dtype != "float32"))


def test_stored_in_the_first_rows_of_a_larger_cache(device):
    keys = references.random(1, 2, 1, 8)
    with gw.tidy():
        cache = KVCache(device, 3, 1, 16, 1, 8)
        first = cache.first_rows(1)
        store_keys_and_values(
            gw.tensor(keys), gw.tensor(-keys), first, 0, gw.tensor([1], "uint32")
        )  # fmt: skip
        found = cache.numpy()[0, 0, :, 1:3]
    np.testing.assert_array_equal(found, [keys[0], -keys[0]])


@pytest.mark.parametrize(("heads", "dim", "out"), [(1, 8, 16), (3, 16, 40)])
@pytest.mark.usefixtures("guarded")
def test_heads_alone(device, heads, dim, out):
    x, w = references.random(2, 5, heads * dim), references.random(out, heads * dim, seed=1)
    raw = Raw(memoryview(w).cast("B"), "F32", w.shape)
    with gw.tidy():
        weight = sync(load_matrix(device, raw, "float32"), "load_matrix")
        found = project_heads(gw.tensor(x), weight, heads).numpy()
    parts = x.reshape(2, 5, heads, dim), w.reshape(out, heads, dim)
    np.testing.assert_allclose(found, np.einsum("bthd,nhd->bthn", *parts), rtol=1e-4, atol=1e-5)


def test_wrong_shapes_are_rejected(device, capabilities):
    with gw.tidy():
        cache, start = KVCache(device, 2, 1, 9, 2, 8), gw.tensor([0, 0], "uint32")
        x = gw.tensor(np.zeros((2, 3, 16)))
        with pytest.raises(ShapeError, match=r"queries \(2, 3, 16\) and start \(1,\)"):
            attention_scores(x, cache, 0, start.first(1), scale=1.0)
        with pytest.raises(ShapeError, match="mask"):
            attention_scores(x, cache, 0, start, scale=1.0, mask=gw.tensor([[1]], "uint32"))
        with pytest.raises(ShapeError, match=r"pattern \(2, 3, 16\)"):
            mix_values(x, cache, 0, start)
        with pytest.raises(ShapeError, match="store_keys_and_values: keys"):
            store_keys_and_values(x, x, cache, 0, start)
        capabilities(max_iterations=8)
        with pytest.raises(LimitError, match="loop over 9 positions"):
            mix_values(gw.tensor(np.zeros((2, 2, 3, 9))), cache, 0, start)
