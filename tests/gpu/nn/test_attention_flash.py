"""Attention by tiles of queries, which GPUs use for prompts, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import attention, cached_attention, choose_kernels
from tests.gpu import references
from tests.gpu.nn.test_cached_attention import expected_attention, filled_cache

pytestmark = pytest.mark.native("NumPy")


def random_cache(device, batch, length, heads, dim, cache_dtype="float32"):
    """Keys and values as the cache rounds them, and the cache."""
    k, v = (
        references.random(batch, length, heads, dim, seed=s).astype(cache_dtype).astype(np.float32)
        for s in (1, 2)
    )
    return k, v, filled_cache(device, k, v, layers=2, layer=1, cache_dtype=cache_dtype)


def attend(q, cache, start, **kwargs):
    """q [B, T, H, D], padded as the cache is, → [B, T, H, D padded]."""
    batch, tokens, heads, dim = q.shape
    padded = np.zeros((batch, tokens, heads, cache.padded_dim), np.float32)
    padded[..., :dim] = q
    queries = gw.tensor(padded.reshape(batch, tokens, -1))
    found = cached_attention(queries, cache, 1, gw.tensor(start, "uint32"), **kwargs)
    return found.numpy().reshape(padded.shape)


@pytest.fixture
def forced():
    """Tiles however few queries there are."""
    with choose_kernels("cached_attention", lambda cache: ("attention_flash", cache.length)):
        yield


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "dim", "length"),
    [
        (1, 1, 1, 1, 1),
        (2, 1, 3, 64, 65),
        (1, 3, 2, 8, 64),
        (3, 31, 2, 20, 63),
        (1, 32, 2, 64, 129),
        (2, 33, 3, 24, 40),
        (1, 70, 1, 128, 200),
        (2, 65, 2, 72, 66),
        (1, 130, 1, 60, 130),
    ],
    ids=str,
)
@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.usefixtures("guarded", "forced")
@pytest.mark.chromium_cases("cache_dtype")
def test_against_numpy(device, batch, tokens, heads, dim, length, cache_dtype):
    q = references.random(batch, tokens, heads, dim)
    start = [max(0, length - tokens - 7 * row) for row in range(batch)]
    with gw.tidy():
        k, v, cache = random_cache(device, batch, length, heads, dim, cache_dtype)
        found = attend(q, cache, start, scale=0.3)
    assert not found[..., dim:].any()
    expected = expected_attention(q, k, v, start, 0.3)
    np.testing.assert_allclose(found[..., :dim], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tokens", "length"), [(3, 65), (33, 64), (70, 5), (40, 130)])
@pytest.mark.usefixtures("guarded", "forced")
def test_without_a_causal_mask_all_of_the_cache_is_seen(device, tokens, length):
    q = references.random(2, tokens, 3, 20)
    mask = (references.random(2, -(-length // 16) * 16, seed=3) > -0.5).astype(np.uint32)
    with gw.tidy():
        k, v, cache = random_cache(device, 2, length, 3, 20)
        found = attend(q, cache, [0, 0], scale=0.3, causal=False)
        masked = attend(q, cache, [0, 0], scale=0.3, causal=False, mask=gw.tensor(mask, "uint32"))
    for each, seen in ((found, None), (masked, mask[:, :length] != 0)):
        assert not each[..., 20:].any()
        expected = expected_attention(q, k, v, None, 0.3, seen)
        np.testing.assert_allclose(each[..., :20], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.usefixtures("guarded", "forced", "narrow_grid")
def test_large_scores_and_grids_that_fold(device, rows):
    q = references.random(rows, 40, 3, 16)
    start = [5 * row for row in range(rows)]
    with gw.tidy():
        k, v, cache = random_cache(device, rows, 80, 3, 16)
        found = attend(q, cache, start, scale=500.0)
    np.testing.assert_allclose(found, expected_attention(q, k, v, start, 500.0), atol=1e-3)


@pytest.mark.usefixtures("guarded", "forced")
def test_masked_positions_are_not_seen_and_a_fully_masked_row_is_the_mean(device):
    """Also where a whole tile of positions is masked, the first or a later one."""
    q = references.random(4, 34, 2, 8)
    mask = (references.random(4, 144) > 0).astype(np.uint32)
    mask[0] = 0
    mask[1, :70] = 0
    mask[2, 64:] = 0
    start = [100] * 4
    with gw.tidy():
        k, v, cache = random_cache(device, 4, 134, 2, 8)
        found = attend(q, cache, start, scale=1.0, mask=gw.tensor(mask, "uint32"))
    expected = expected_attention(q, k, v, start, 1.0, mask[:, :134] != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0, 33], v[0].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "dim", "cpu", "most", "kernel"),
    [
        (31, 64, False, 1 << 32, "attention"),
        (32, 64, False, 1 << 32, "attention_flash"),
        (32, 136, False, 1 << 32, "attention"),
        (32, 64, True, 65_535, "attention_cpu"),
        (32, 64, True, 350, "attention_flash"),
    ],
)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("kernel")
def test_full_tiles_are_chosen_on_gpus(
    device, monkeypatch, capabilities, tokens, dim, cpu, most, kernel
):
    capabilities(prefers_no_barriers=cpu, max_iterations=most)
    names = []
    dispatch = attention.dispatch
    monkeypatch.setattr(
        attention,
        "dispatch",
        lambda *given, **named: (names.append(given[1]), dispatch(*given, **named)),
    )
    q = references.random(1, tokens, 2, dim)
    with gw.tidy():
        k, v, cache = random_cache(device, 1, 100, 2, dim)
        found = attend(q, cache, [60], scale=0.2)
    assert names == [kernel]
    np.testing.assert_allclose(found, expected_attention(q, k, v, [60], 0.2), rtol=1e-4, atol=1e-5)
