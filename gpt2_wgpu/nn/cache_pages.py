"""Pages of a KV cache: keys and values of up to ``PAGE`` positions of one row, in one buffer."""

from __future__ import annotations

from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.matrix import round_up
from gpt2_wgpu.tensors.ops.arrays import copy_block
from gpt2_wgpu.tensors.ops.strides import row_major
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

PAGE = 64  # positions


def page_words(num_heads: int, head_dim: int, cache_dtype: str) -> int:
    """Return the number of 32-bit words of a layer in a page."""
    elements = 2 * num_heads * round_up(head_dim, 8) * PAGE
    return elements if cache_dtype == "float32" else elements // 2


def new_page(cache: KVCache) -> Tensor:
    """Return an uninitialised page for a row of ``cache``: uint32 [L, words].

    Layout of a layer as in the cache, with ``PAGE`` for its capacity.
    """
    words = page_words(cache.num_heads, cache.head_dim, cache.cache_dtype)
    return empty(cache.device, (len(cache.children), words), "uint32", kind="cache")


def save_page(cache: KVCache, page: Tensor, first: int, start: int, end: int) -> None:
    """Copy the positions from ``start`` to before ``end`` of a cache of one row to ``page``.

    ``first``: position of the cache at the beginning of the page.
    """
    _copy(cache, page, first, start, end, to_page=True)


def load_page(cache: KVCache, page: Tensor, first: int, start: int, end: int) -> None:
    """Copy the positions from ``start`` to before ``end`` from ``page``; see :func:`save_page`."""
    _copy(cache, page, first, start, end, to_page=False)


def cleared_page(words: memoryview, layers: int, num_heads: int, head_dim: int, used: int) -> bytes:
    """Return the contents of a page, with zeros after the first ``used`` positions."""
    data, padded = bytearray(words.cast("B")), round_up(head_dim, 8)
    half = len(data) // layers // 2
    for layer in range(layers):
        for part, arrays in enumerate((num_heads * padded // 8, num_heads)):
            begin, step = (2 * layer + part) * half, half // arrays
            unused = bytes(step // PAGE * (PAGE - used))
            for end in range(begin + step, begin + half + 1, step):
                data[end - len(unused) : end] = unused
    return bytes(data)


def _copy(cache: KVCache, page: Tensor, first: int, start: int, end: int, *, to_page: bool) -> None:
    heads, dim, count = cache.num_heads, cache.padded_dim, end - start
    eight = 8 if cache.cache_dtype == "float32" else 4  # words of 8 elements
    halves = [  # arrays of a position, and words of a position in each: keys, values
        (heads * dim // 8, eight),
        (heads, dim // 8 * eight),
    ]
    with tidy("cache page"):
        for index, layer in enumerate(cache.children):
            words = Tensor(layer.device, layer.storage.retain(), (layer.nbytes // 4,), "uint32")
            for half, (arrays, width) in enumerate(halves):
                shape = (arrays, count, width)
                in_cache = row_major((arrays, cache.capacity, width))
                cache_start = half * words.size // 2 + start * width
                in_page = row_major((arrays, PAGE, width))
                page_start = index * page.shape[1] + half * page.shape[1] // 2
                page_start += (start - first) * width
                if to_page:
                    copy_block(words, page, shape, in_cache, cache_start, in_page, page_start)
                else:
                    copy_block(page, words, shape, in_page, page_start, in_cache, cache_start)
