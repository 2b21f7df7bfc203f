"""Fused attention kernels and the KV cache, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import AttentionPartials, KVCache, Raw, cached_attention, linear, load_matrix
from gpt2_wgpu.webgpu.waiting import sync
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("variant"), pytest.mark.native("NumPy")]


@pytest.fixture(params=["cpu", "lanes", "gpu"])
def variant(request, capabilities):
    """Runs a test with each kernel for CPU adapters and with those for GPUs."""
    few = 0 if request.param == "cpu" else 1 << 30
    capabilities(prefers_no_barriers=request.param != "gpu", few_queries=few)
    return request.param


def filled_cache(device, keys, values, layers=1, layer=0, cache_dtype="float32"):
    """A cache holding keys, values [B, S, H, D] in one layer and NaN everywhere else."""
    batch, length, heads, dim = keys.shape
    cache = KVCache(device, batch, layers, length, heads, dim, cache_dtype)
    physical = np.full((2, batch, heads, cache.capacity, cache.padded_dim), np.nan, cache_dtype)
    for other in range(layers):
        device.queue.upload(cache.layer(other).storage, 0, physical)
    physical[:, :, :, :length] = 0  # padded dimensions are zero, positions past the end never read
    for part, x in enumerate((keys, values)):
        physical[part, :, :, :length, :dim] = x.transpose(0, 2, 1, 3)
    k = physical[0].reshape(batch, heads, cache.capacity, -1, 8).swapaxes(2, 3)
    device.queue.upload(
        cache.layer(layer).storage, 0, np.stack([k.reshape(-1), physical[1].ravel()])
    )
    return cache


def attend(queries, cache, layer, start, **kwargs):
    """Attention as an array, through a linear layer of ones where it comes in parts."""
    found = cached_attention(queries, cache, layer, start, **kwargs)
    if isinstance(found, AttentionPartials):
        width = found.shape[-1]
        raw = Raw(memoryview(np.eye(width, dtype=np.float32)).cast("B"), "F32", (width, width))
        found = linear(found, sync(load_matrix(queries.device, raw, "float32"), "load_matrix"))
    return found.numpy()


def expected_attention(q, k, v, start, scale, mask=None):
    """q [B, T, H, D]; k, v [B, S, H, D] → [B, T, H, D] in float64. ``start`` None: not causal."""
    scores = np.einsum("bthd,bshd->bhts", q.astype(float), k.astype(float)) * scale
    if mask is not None:
        scores = np.where(mask[:, None, None, :], scores, -1e9)
    if start is None:
        start = [k.shape[1]] * q.shape[0]
    places = np.asarray(start)[:, None] + np.arange(q.shape[1])
    seen = np.arange(k.shape[1]) <= places[:, :, None]
    weights = references.softmax(np.where(seen[:, None], scores, -np.inf))
    return np.einsum("bhts,bshd->bthd", weights, v.astype(float))


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "dim", "length"),
    [
        (1, 1, 1, 1, 1),
        (1, 1, 2, 8, 127),
        (2, 1, 3, 64, 128),
        (2, 3, 2, 20, 129),
        (1, 5, 2, 64, 300),
        (3, 2, 1, 10, 7),
        (1, 2, 1, 128, 60),
        (1, 2, 1, 200, 9),
        (1, 1, 1, 512, 130),
        (2, 1, 3, 64, 1000),
    ],
    ids=str,
)
@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant", "cache_dtype")
def test_against_numpy(device, batch, tokens, heads, dim, length, cache_dtype):
    q = references.random(batch, tokens, heads, dim)
    k, v = (
        references.random(batch, length, heads, dim, seed=s).astype(cache_dtype).astype(np.float32)
        for s in (1, 2)
    )
    start = [max(0, length - tokens - row) for row in range(batch)]
    with gw.tidy():
        cache = filled_cache(device, k, v, layers=2, layer=1, cache_dtype=cache_dtype)
        padded = np.zeros((batch, tokens, heads, cache.padded_dim), np.float32)
        padded[..., :dim] = q
        result = attend(
            gw.tensor(padded.reshape(batch, tokens, -1)), cache, 1,
            gw.tensor(start, "uint32"), scale=0.3,
        )  # fmt: skip
    result = result.reshape(padded.shape)
    assert not result[..., dim:].any()
    np.testing.assert_allclose(
        result[..., :dim], expected_attention(q, k, v, start, 0.3), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "dim", "length"),
    [
        (1, 1, 1, 1, 1),
        (2, 3, 2, 20, 129),
        (3, 70, 2, 24, 5),
        (1, 33, 2, 128, 66),
        (1, 1, 3, 64, 700),
    ],
    ids=str,
)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant")
def test_without_a_causal_mask_all_of_the_cache_is_seen(device, batch, tokens, heads, dim, length):
    """More queries than keys, and fewer; ``start`` does not count, masked positions do."""
    q = references.random(batch, tokens, heads, dim)
    k, v = (references.random(batch, length, heads, dim, seed=s) for s in (1, 2))
    with gw.tidy():
        cache = filled_cache(device, k, v, layers=2, layer=1)
        padded = np.zeros((batch, tokens, heads, cache.padded_dim), np.float32)
        padded[..., :dim] = q
        mask = references.random(batch, cache.capacity, seed=3) > -0.5
        mask[0] = False
        arguments = gw.tensor(padded.reshape(batch, tokens, -1)), cache, 1
        for start, seen in (([0] * batch, None), ([7] * batch, mask)):
            given = None if seen is None else gw.tensor(seen.astype(np.uint32), "uint32")
            found = attend(
                *arguments, gw.tensor(start, "uint32"), scale=0.3, mask=given, causal=False
            ).reshape(padded.shape)
            assert not found[..., dim:].any()
            expected = expected_attention(
                q, k, v, None, 0.3, None if seen is None else seen[:, :length]
            )
            np.testing.assert_allclose(found[..., :dim], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "length", "splits"),
    [(1, 128, 1), (1, 129, 2), (1, 1024, 8), (4, 1024, 3), (8, 1024, 2), (11, 1024, 1)],
)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant")
def test_positions_are_split_only_where_queries_are_few(device, variant, batch, length, splits):
    """About 128 workgroups: what has many queries leaves the next layer fewer parts to read."""
    q = references.random(batch, 1, 12, 8)
    k, v = (references.random(batch, length, 12, 8, seed=s) for s in (1, 2))
    start = [length - 1 - row for row in range(batch)]
    with gw.tidy():
        cache = filled_cache(device, k, v)
        arguments = gw.tensor(q.reshape(batch, 1, 96)), cache, 0, gw.tensor(start, "uint32")
        found = cached_attention(*arguments, scale=0.3)
        result = attend(*arguments, scale=0.3)
    parts = found.splits if isinstance(found, AttentionPartials) else 1
    assert parts == (splits if variant == "gpu" else 1)
    expected = expected_attention(q, k, v, start, 0.3).reshape(batch, 1, 96)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("guarded")
def test_large_scores_do_not_overflow(device):
    q, k, v = (references.random(1, 4, 2, 8, seed=s) for s in (0, 1, 2))
    with gw.tidy():
        cache = filled_cache(device, k, v)
        found = attend(
            gw.tensor(q.reshape(1, 4, 16)), cache, 0, gw.tensor([0], "uint32"), scale=500.0
        )
    expected = expected_attention(q, k, v, [0], 500.0).reshape(1, 4, 16)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("part", ["key", "value"])
@pytest.mark.parametrize("position", [5, 500, 999])
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant")
def test_a_nan_anywhere_is_seen(device, part, position):
    """Also in one of the shares that a long cache is split into; the other row has none."""
    q = references.random(2, 1, 2, 8)
    k, v = (references.random(2, 1000, 2, 8, seed=s) for s in (1, 2))
    (k if part == "key" else v)[1, position] = np.nan
    with gw.tidy():
        cache = filled_cache(device, k, v)
        found = attend(
            gw.tensor(q.reshape(2, 1, 16)), cache, 0, gw.tensor([999, 999], "uint32"), scale=0.3
        )
    expected = expected_attention(q[:1], k[:1], v[:1], [999], 0.3).reshape(1, 16)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(found[1]).all()


@pytest.mark.usefixtures("guarded")
def test_masked_positions_are_not_seen_and_a_fully_masked_row_is_the_mean(device):
    q, k, v = (references.random(2, 6, 1, 8, seed=s) for s in (0, 1, 2))
    mask = np.ones((2, 16), np.uint32)
    mask[0, 2:4] = 0
    mask[1] = 0
    with gw.tidy():
        cache = filled_cache(device, k, v)
        found = attend(
            gw.tensor(q.reshape(2, 6, 8)), cache, 0, gw.tensor([0, 0], "uint32"),
            scale=1.0, mask=gw.tensor(mask, "uint32"),
        )  # fmt: skip
    expected = expected_attention(q, k, v, [0, 0], 1.0, mask[:, :6] != 0)
    np.testing.assert_allclose(found, expected.reshape(2, 6, 8), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1, 5], v[1].mean(0).ravel(), rtol=1e-4, atol=1e-5)


def test_a_long_context_in_one_thread(device):
    """llvmpipe stops a thread after 65,535 loop rounds; a long context must not be cut there."""
    length, dim = 3000, 64
    q = references.random(1, 1, 1, dim)
    k, v = (references.random(1, length, 1, dim, seed=s) for s in (1, 2))
    with gw.tidy():
        cache = filled_cache(device, k, v)
        found = attend(
            gw.tensor(q.reshape(1, 1, dim)), cache, 0,
            gw.tensor([length - 1], "uint32"), scale=0.01,
        )  # fmt: skip
    expected = expected_attention(q, k, v, [length - 1], 0.01).reshape(1, 1, dim)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("length", "most"), [(40, 400), (300, 100), (300, 20)])
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant")
def test_no_thread_loops_more_often_than_the_device_allows(device, capabilities, length, most):
    """By one thread within its limit, else by a workgroup, and rejected beyond that."""
    capabilities(max_iterations=most)
    q = references.random(1, 1, 2, 8)
    k, v = (references.random(1, length, 2, 8, seed=s) for s in (1, 2))
    start = length - 1
    with gw.tidy():
        cache = filled_cache(device, k, v)
        arguments = gw.tensor(q.reshape(1, 1, 16)), cache, 0, gw.tensor([start], "uint32")
        if (length, most) == (300, 20):
            with pytest.raises(LimitError, match="300 positions"):
                cached_attention(*arguments, scale=0.3)
            return
        found = attend(*arguments, scale=0.3)
    expected = expected_attention(q, k, v, [start], 0.3).reshape(1, 1, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_leak")
def test_the_cache_reads_back_in_its_logical_layout(device):
    k, v = (references.random(2, 5, 3, 6, seed=s) for s in (1, 2))
    with gw.tidy():
        cache = filled_cache(device, k, v, layers=3, layer=2)
        assert cache.shape == (2, 3, 2, 5, 3, 6)
        found = cache.numpy()
    np.testing.assert_array_equal(found[:, 2, 0], k)
    np.testing.assert_array_equal(found[:, 2, 1], v)
    assert np.isnan(found[:, :2]).all()


def test_what_does_not_fit_is_refused(device):
    with gw.tidy():
        cache = KVCache(device, 2, 1, 4, 1, 8)
        start = gw.tensor([0, 0], "uint32")
        q = gw.tensor(references.random(2, 1, 8))
        with pytest.raises(ShapeError, match=r"queries \(1, 1, 8\)"):
            cached_attention(gw.tensor(references.random(1, 1, 8)), cache, 0, start, scale=1.0)
        with pytest.raises(ShapeError, match=r"mask \(2, 3\), not \(2, 16\)"):
            mask = gw.tensor(np.ones((2, 3), np.uint32), "uint32")
            cached_attention(q, cache, 0, start, scale=1.0, mask=mask)
        wide = KVCache(device, 1, 1, 4, 1, 520)
        with pytest.raises(LimitError, match="520"):
            query = gw.tensor(references.random(1, 1, 520))
            cached_attention(query, wide, 0, gw.tensor([0], "uint32"), scale=1.0)
        with pytest.raises(ShapeError, match="sizes of a cache must be at least 1"):
            KVCache(device, 0, 1, 4, 1, 8)


@pytest.mark.parametrize("dim", [8, 64, 136])  # 136: wider than registers hold
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("variant")
def test_in_one_order_a_query_gets_the_same_bits_alone_and_among_others(
    device, capabilities, variant, dim
):
    capabilities(prefers_no_barriers=variant != "gpu")
    q, k, v = (references.random(3, 150, 2, dim, seed=seed) for seed in range(3))
    with gw.tidy():
        cache = filled_cache(device, k, v)
        alone = [filled_cache(device, k[row : row + 1], v[row : row + 1]) for row in range(3)]

        def found(cache, rows, first, count):
            queries = q[rows, first : first + count]
            start = gw.tensor([first] * len(queries), "uint32")
            width = (*queries.shape[:2], -1)
            return cached_attention(
                gw.tensor(queries.reshape(width)), cache, 0, start, scale=0.3, one_order=True
            ).numpy()

        whole = found(cache, slice(None), 0, 150)
        for first, count in ((0, 1), (149, 1), (40, 7), (100, 50)):
            many = found(cache, slice(None), first, count)
            np.testing.assert_array_equal(many, whole[:, first : first + count])
            one = found(alone[1], slice(1, 2), first, count)
            np.testing.assert_array_equal(one[0], whole[1, first : first + count])
    expected = expected_attention(q, k, v, [0] * 3, 0.3)
    np.testing.assert_allclose(whole.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
