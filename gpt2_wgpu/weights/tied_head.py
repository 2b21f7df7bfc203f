"""Comparison of a stored head with the token embedding; transformers ties them only if equal."""

from __future__ import annotations

from gpt2_wgpu.weights.blobs import read_range
from gpt2_wgpu.weights.checkpoint import BlobRange, WeightSource
from gpt2_wgpu.weights.naming import EMBEDDING, HEAD, by_model_name

_PIECE = 4 << 20  # bytes compared at a time, to bound copies in a browser


async def differing_head(source: WeightSource) -> str | None:
    """Return a warning if the source's head differs from its token embedding, else None.

    The stored head then takes precedence over config.json, as in transformers 5.
    """
    found, _ = by_model_name(source)
    if HEAD not in found or EMBEDDING not in found:
        return None
    head, embedding = found[HEAD], found[EMBEDDING]
    if head.dtype != embedding.dtype:
        what = f"dtypes ({head.dtype} and {embedding.dtype})"
    elif head.shape != embedding.shape:
        what = f"shapes ({list(head.shape)} and {list(embedding.shape)})"
    elif await _equal(source.read(head.name), source.read(embedding.name), head.nbytes):
        return None
    else:
        what = "values"
    return (
        f"{source.where}: {head.name} and {embedding.name} are stored with different {what}, so "
        "they are not tied; set tie_word_embeddings to false in config.json to say so"
    )


async def _equal(a: memoryview | BlobRange, b: memoryview | BlobRange, nbytes: int) -> bool:
    for begin in range(0, nbytes, _PIECE):
        end = min(begin + _PIECE, nbytes)
        if await _piece(a, begin, end) != await _piece(b, begin, end):
            return False
    return True


async def _piece(data: memoryview | BlobRange, begin: int, end: int) -> bytes:
    if isinstance(data, BlobRange):
        return await read_range(BlobRange(data.blob, data.begin + begin, data.begin + end))
    return bytes(data[begin:end])
