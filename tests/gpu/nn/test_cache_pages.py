"""Pages of a KV cache: positions that are copied there and back."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import PAGE, KVCache, load_page, new_page, save_page

LAYERS = 2


def filled(device, heads, dim, length, cache_dtype, first):
    """A cache whose words are counted from ``first`` on."""
    cache = KVCache(device, 1, LAYERS, length, heads, dim, cache_dtype)
    for layer in cache.children:
        count = layer.nbytes // 4
        words = gw.tensor(list(range(first, first + count)), "uint32")
        device.queue.flush([(words.storage.buffer, 0, layer.storage.buffer, 0, layer.nbytes)])
        first += count
    return cache


def words_of(cache):
    """Words of each layer: [positions][array of keys or values, word]."""
    eight = 8 if cache.cache_dtype == "float32" else 4
    found = []
    for layer in cache.children:
        (data,) = gw.webgpu.sync(layer.device.queue.read([(layer.storage, 0, layer.nbytes)]), "")
        words = data.cast("B").cast("I").tolist()
        half, rows = len(words) // 2, []
        wide = cache.padded_dim // 8 * eight
        for position in range(cache.capacity):
            row = []
            for begin, width in ((0, eight), (half, wide)):
                step = cache.capacity * width
                for array in range(half // step):
                    at = begin + array * step + position * width
                    row += words[at : at + width]
            rows.append(row)
        found.append(rows)
    return found


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("heads", "dim", "start", "end"),
    [(1, 8, 64, 65), (3, 20, 64, 128), (2, 16, 70, 93), (1, 64, 127, 128)],
)
def test_there_and_back(device, no_leak, cache_dtype, heads, dim, start, end):
    with gw.tidy():
        source = filled(device, heads, dim, 2 * PAGE + 16, cache_dtype, 1)
        copy = filled(device, heads, dim, 3 * PAGE, cache_dtype, 1_000_000)
        given, before = words_of(source), words_of(copy)
        page = new_page(source)
        save_page(source, page, PAGE, start, end)
        load_page(copy, page, PAGE, start, end)
        after = words_of(copy)
        assert words_of(source) == given
        for layer in range(LAYERS):
            assert after[layer][start:end] == given[layer][start:end]
            assert after[layer][:start] == before[layer][:start]
            assert after[layer][end:] == before[layer][end:]
