"""Rows of a KV cache, selected and reordered, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import KVCache, reorder_rows, select_rows

pytestmark = pytest.mark.native("NumPy")


def random_cache(device, batch, length, heads, dim, dtype):
    """A cache of two layers, all of whose memory is random."""
    cache = KVCache(device, batch, 2, length, heads, dim, dtype)
    for index in range(2):
        layer = cache.layer(index)
        values = np.random.default_rng(index).standard_normal(layer.shape).astype(dtype)
        device.queue.upload(layer.storage, 0, values)
    return cache


SHAPES = [
    (2, 1, 1, 1, 1),
    (1, 5, 17, 3, 20),
    (3, 2, 33, 2, 8),
    (2, 32, 9, 1, 64),
    (2, 3, 40, 1, 13),
]


@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("groups", "rows", "length", "heads", "dim"), SHAPES)
def test_reorder_rows(device, groups, rows, length, heads, dim, dtype):
    rng = np.random.default_rng(rows)
    parents = rng.integers(0, rows, (groups, rows))
    first = np.repeat(rng.integers(0, length // 2 + 1, (groups, 1)), rows, 1)
    end = np.repeat(rng.integers(length // 2, length + 1, (groups, 1)), rows, 1)
    with gw.tidy("test"):
        whole = random_cache(device, groups * rows + 1, length, heads, dim, dtype)
        cache, last = whole.first_rows(groups * rows), whole.numpy()[-1]
        before = cache.numpy().reshape(groups, rows, 2, 2, length, heads, dim)
        reorder_rows(cache, *(gw.tensor(x, "uint32", device=device) for x in (parents, first, end)))
        found = cache.numpy().reshape(before.shape)
        np.testing.assert_array_equal(whole.numpy()[-1], last)
    expected = before.copy()
    for g in range(groups):
        part = np.s_[g, :, :, :, first[g, 0] : end[g, 0]]
        expected[part] = before[part][parents[g]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_select_rows(device, dtype):
    with gw.tidy("test"):
        cache = random_cache(device, 3, 19, 2, 20, dtype)
        expected = cache.numpy()[[2, 0, 0, 1, 2]]
        np.testing.assert_array_equal(select_rows(cache, [2, 0, 0, 1, 2]).numpy(), expected)


def test_wrong_shapes_and_large_groups_are_rejected(device):
    with gw.tidy("test"):
        cache = KVCache(device, 33, 1, 4, 1, 8)
        wide, wrong = (gw.tensor(np.zeros(s, int), "uint32") for s in ((1, 33), (32, 2)))
        with pytest.raises(LimitError, match="33 rows exceed 32"):
            reorder_rows(cache, wide, wide, wide)
        with pytest.raises(ShapeError, match=r"parents \(32, 2\)"):
            reorder_rows(cache, wrong, wrong, wrong)
        with pytest.raises(ShapeError, match="first"):
            reorder_rows(cache, wide, wrong, wide)
