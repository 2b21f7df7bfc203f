"""Rows of a KV cache: selected, and reordered in place, for searches with several rows a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.sampling_parameters import MAX_BEAMS
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.tensors.tidying import tidy


def select_rows(cache: KVCache, rows: Sequence[int]) -> KVCache:
    """Return a new cache of these ``rows`` of ``cache``; a row may be selected several times."""
    cache.check()
    batch, layers, _, length, heads, dim = cache.shape
    result = KVCache(cache.device, len(rows), layers, length, heads, dim, cache.cache_dtype)
    with tidy("selected rows"):
        indices = tensor(rows, "uint32", device=cache.device)
        for index, child in enumerate(cache.children):
            selected = _words(result.layer(index))
            dispatch(
                cache.device,
                "gather",
                groups_for(selected.size, 64),
                {"x": _words(child), "indices": indices, "result": selected},
                {
                    "count": selected.size,
                    "rows": batch,
                    "picks": len(rows),
                    "inner": selected.size // (2 * len(rows)),  # keys, or values, of a row
                    "missing": 0,
                },
            )
    return result


def _words(layer: Tensor) -> Tensor:
    """A layer as 32-bit words that share its memory."""
    return Tensor(layer.device, layer.storage.retain(), (layer.nbytes // 4,), "uint32")


def reorder_rows(cache: KVCache, parents: Tensor, first: Tensor, end: Tensor) -> None:
    """Replace rows of ``cache``, in place: row (g, r) becomes row (g, ``parents[g, r]``).

    Args:
        cache: [G * R, L, 2, S, H, D].
        parents: [G, R] uint32, below R; values are not checked.
        first: [G, R] uint32: first position that may differ within a group, equal in it.
        end: [G, R] uint32: end of the positions to copy, equal within a group.

    Raises:
        ShapeError: the shapes are incompatible.
        LimitError: a group has more than 32 rows.
    """
    shape = parents.shape
    if len(shape) != 2 or shape[0] * shape[1] != cache.batch_size:
        raise ShapeError(f"reorder_rows: parents {shape} for a cache of shape {cache.shape}")
    if first.shape != shape or end.shape != shape:
        raise ShapeError(f"reorder_rows: first {first.shape} and end {end.shape}, not {shape}")
    groups, rows = shape
    if rows > MAX_BEAMS:
        raise LimitError(f"reorder_rows: groups of {rows} rows exceed {MAX_BEAMS}")
    key_quads = 2 if cache.cache_dtype == "float32" else 1
    for layer in cache.children:
        quads = layer.nbytes // 16 // (2 * cache.allocated_rows)
        dispatch(
            cache.device,
            "reorder_cache",
            groups_for(2 * groups * quads, 64),
            {"cache": layer, "parents": parents, "first": first, "end": end},
            {
                "groups": groups,
                "rows": rows,
                "allocated_rows": cache.allocated_rows,
                "row_quads": quads,
                "key_quads": key_quads,
                "value_quads": key_quads * cache.padded_dim // 8,
                "capacity": cache.capacity,
            },
        )
