"""Sessions as bytes: tokens, keys and values, and the model that they belong to.

The format is a safetensors file of two tensors, ``token_ids`` [n] and ``pages`` [pages, layers,
words], both U32, with JSON in its metadata. The version changes when an older reader would
misunderstand it; version 1 had another fingerprint of the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gpt2_wgpu import strict_json
from gpt2_wgpu.errors import OutOfGPUMemoryError, SessionError, WeightsError
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import GPT2Weights
from gpt2_wgpu.models.session_cache import Segment, SessionCache
from gpt2_wgpu.models.session_tokens import POLICIES, SessionTokens
from gpt2_wgpu.nn import PAGE, cleared_page, page_words
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, keep, tidy
from gpt2_wgpu.tensors.tensor import empty
from gpt2_wgpu.webgpu.storage import Storage
from gpt2_wgpu.weights.header import parse_header
from gpt2_wgpu.weights.writer import AtomicFile, Description, header_of

FORMAT, VERSION = "gpt2_wgpu session", "2"
# Of each weight tensor the fingerprint covers all bytes, of a large one samples all over it.
WHOLE, SAMPLE, SAMPLES = 16 << 10, 64, 64  # bytes, bytes of a sample, number of samples
_fingerprints: WeakKeyDictionary[GPT2Backbone, tuple[int, str]] = WeakKeyDictionary()


def read_file(source: Any) -> tuple[bytes, str]:
    """Return the bytes of a file, or ``source`` if it is bytes, and its name in messages.

    SessionError if it cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the session"
    path = _path(source, " or its bytes")
    try:
        return path.read_bytes(), str(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL, or a lone surrogate
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise SessionError(f"{shown(str(path))} cannot be read: {reason}") from None


def write_file(path: Any, data: bytes) -> None:
    """Write a file, which replaces one that exists at the end; SessionError if it cannot be."""
    where = _path(path)
    try:
        with AtomicFile(where) as file:
            file.write(data)
    except WeightsError as error:
        raise SessionError(str(error)) from None  # names the file
    except ValueError as error:
        raise SessionError(f"{shown(str(where))} cannot be written: {error}") from None


def _path(path: Any, others: str = "") -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise SessionError(f"a session's file must be a path{others}, not {shown(path)}")
    return Path(os.fsdecode(path))


async def session_bytes(
    backbone: GPT2Backbone, tokens: SessionTokens, cache: SessionCache
) -> bytes:
    """Return a session as bytes; keys and values on a lost device are left out."""
    device, pages, stored = backbone.device, cache.pages, cache.stored
    if pages and pages[0].device is not device:
        pages, stored = [], 0
    model = await _model_of(backbone)
    parts: list[bytes] = [array("I", tokens.ids).tobytes()]
    config = backbone.config
    shape = config.n_layer, config.n_head, config.head_dim
    for index, page in enumerate(pages):
        (words,) = await device.queue.read([(page.storage, 0, page.nbytes)])
        # What was removed must not be in the file.
        parts.append(cleared_page(words, *shape, min(PAGE, stored - index * PAGE)))
    state = asdict(tokens) | {
        "segments": [[each.start, each.end, each.chunk] for each in cache.segments],
        "stored": stored,
        "crc32": _checksum(parts),
    }
    del state["ids"]
    layers, words_of_layer = _page_shape(backbone)
    described = [
        Description("token_ids", "U32", (len(tokens.ids),)),
        Description("pages", "U32", (len(pages), layers, words_of_layer)),
    ]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": json.dumps(model),
        "session": json.dumps(state),
    }
    return b"".join([header_of(described, metadata), *parts])


async def session_of_bytes(
    backbone: GPT2Backbone, data: bytes | memoryview, where: str
) -> tuple[SessionTokens, SessionCache]:
    """Return tokens and cache of :func:`session_bytes`.

    Raises:
        SessionError: ``data`` is no session, is damaged, or belongs to another model.
    """
    view = memoryview(data).cast("B")
    try:
        header = parse_header(view, len(view), where)
    except WeightsError:
        raise SessionError(
            f"{where} is no session, or not a complete one ({len(view):,} bytes): save it again"
        ) from None
    metadata = header.metadata
    if metadata.get("format") != FORMAT or set(header.tensors) != {"token_ids", "pages"}:
        raise SessionError(f"{where} is a safetensors file, but not a session")
    if metadata.get("version") != VERSION:
        raise SessionError(
            f"{where} has version {shown(metadata.get('version'))} of the session format, this "
            f"library reads {VERSION}: save it again with the library that will read it"
        )
    parts = [view[each.begin : each.end] for each in header.tensors.values()]
    try:
        model, state = (_parsed(metadata[key]) for key in ("model", "session"))
        if state.pop("crc32") != _checksum(parts):
            raise ValueError("the checksum differs")
        _check_model(model, await _model_of(backbone), where)
        tokens = _tokens_of(state, list(_words(header.tensors["token_ids"], view)), backbone)
        segments = [Segment(*_integers(each, 3)) for each in state.pop("segments")]
        stored = _integers([state.pop("stored")], 1)[0]
        _check_segments(segments, stored, tokens)
        shape = header.tensors["pages"].shape
        if state or shape != (-(-stored // PAGE), *_page_shape(backbone)):
            raise ValueError("the values do not fit together")
    except SessionError:
        raise
    except ValueError as error:
        raise SessionError(f"{where} is damaged ({error}): save the session again") from None
    except (AttributeError, KeyError, TypeError):
        raise SessionError(f"{where} is damaged (a value is missing): save it again") from None
    cache = SessionCache(segments)
    pages = _words(header.tensors["pages"], view)
    size = len(pages) // shape[0] if shape[0] else 0
    try:
        with tidy("session"):
            loaded = [_page(backbone, pages[i * size : (i + 1) * size]) for i in range(shape[0])]
    except OutOfGPUMemoryError:
        return tokens, cache  # computed again when they are needed
    cache.adopt(loaded, stored)
    return tokens, cache


def _parsed(text: str) -> dict[str, Any]:
    values = strict_json.parse(text.encode())
    if not isinstance(values, dict):
        raise ValueError("a description is no object")
    return values


def _words(entry: Any, data: memoryview) -> memoryview:
    """Return a tensor's words."""
    words = array("I")
    words.frombytes(data[entry.begin : entry.end])
    return memoryview(words)


def _page(backbone: GPT2Backbone, words: memoryview) -> Tensor:
    page = keep(empty(backbone.device, _page_shape(backbone), "uint32", kind="cache"))
    backbone.device.queue.upload(page.storage, 0, words)
    return page


def _page_shape(backbone: GPT2Backbone) -> tuple[int, int]:
    config = backbone.config
    return config.n_layer, page_words(config.n_head, config.head_dim, backbone.cache_dtype)


def _checksum(parts: Sequence[bytes | memoryview]) -> int:
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found


# --- the model -----------------------------------------------------------------------------------


async def _model_of(backbone: GPT2Backbone) -> dict[str, Any]:
    """Return what a session requires of its model."""
    return {
        "config": json.loads(json.dumps(backbone.config.to_dict())),
        "dtype": backbone.dtype,
        "cache_dtype": backbone.cache_dtype,
        "weights": await weights_fingerprint(backbone),
    }


async def weights_fingerprint(backbone: GPT2Backbone) -> str:
    """Return a digest of samples of the weights, computed once for these weights."""
    version = backbone.weights_version
    known = _fingerprints.get(backbone)
    if known is not None and known[0] == version:
        return known[1]
    digest = hashlib.sha256()
    ranges = [each for parts in _tensors(backbone.weights) for each in _samples(parts)]
    for data in await backbone.device.queue.read(ranges):
        digest.update(data)
    _fingerprints[backbone] = version, digest.hexdigest()
    return digest.hexdigest()


def _tensors(weights: GPT2Weights) -> Iterator[list[Tensor]]:
    """Yield the parts of each tensor that was loaded."""
    matrices = [weights.wte, weights.wpe]
    if weights.lm_head is not weights.wte:
        matrices.append(weights.lm_head)
    vectors = [weights.ln_f.weight, weights.ln_f.bias]
    for block in weights.blocks:
        for norm in (block.ln_1, block.ln_2):
            vectors += [norm.weight, norm.bias]
        for linear in (block.c_attn, block.attn_c_proj, block.c_fc, block.mlp_c_proj):
            matrices.append(linear.weight)
            vectors.append(linear.bias)
    yield from ([part for _, part in matrix.parts] for matrix in matrices)
    yield from ([vector] for vector in vectors)


def _samples(parts: Sequence[Tensor]) -> Iterator[tuple[Storage, int, int]]:
    """Yield the ranges of a tensor that the fingerprint covers; its division does not matter."""
    total = sum(part.nbytes for part in parts)
    wanted = [(0, total)]
    if total > WHOLE:
        step = (total - SAMPLE) / (SAMPLES - 1)
        firsts = [round(step * index) // 4 * 4 for index in range(SAMPLES)]
        wanted = [(first, first + SAMPLE) for first in firsts]
    begin = 0
    for part in parts:
        end = begin + part.nbytes
        for first, last in wanted:
            low, high = max(first, begin), min(last, end)
            if size := max(0, high - low) // 4 * 4:
                yield part.storage, low - begin, size
        begin = end


def _check_model(saved: dict[str, Any], ours: dict[str, Any], where: str) -> None:
    """Raise SessionError for a session of another model."""
    if set(saved) != set(ours):
        raise ValueError("the description of the model is incomplete")
    for key in ("config", "dtype", "cache_dtype"):
        if saved[key] != ours[key]:
            values = f": {shown(saved[key])}, here {shown(ours[key])}" if key != "config" else ""
            remedy = f", loaded with that {key}" if key != "config" else ""
            raise SessionError(
                f"{where} was saved with another {key}{values}. Load it with the model that it was "
                f"saved with{remedy}"
            )
    if saved["weights"] != ours["weights"]:
        raise SessionError(
            f"{where} was saved with other weights. Load it with the model, and the adapter, that "
            "it was saved with"
        )


# --- the values ----------------------------------------------------------------------------------


def _integers(values: Any, count: int) -> list[int]:
    """Return ``count`` integers from 0 on; ValueError for anything else."""
    ok = isinstance(values, list) and len(values) == count
    if not ok or not all(type(each) is int and 0 <= each < 2**53 for each in values):
        raise ValueError("a number is missing or out of range")
    found: list[int] = values
    return found


def _tokens_of(state: dict[str, Any], ids: list[int], backbone: GPT2Backbone) -> SessionTokens:
    """Return the tokens, taken out of ``state``; ValueError for impossible ones."""
    config = backbone.config
    max_length, start, dropped = _integers(
        [state.pop(key) for key in ("max_length", "start", "dropped")], 3
    )
    policy, given = state.pop("policy"), [tuple(_integers(g, 2)) for g in state.pop("given")]
    ends = [0, *chain.from_iterable(given), len(ids)]
    fits = policy != "error" or len(ids) <= max_length
    if (
        policy not in POLICIES
        or not 1 <= max_length <= config.n_positions
        or not fits
        or start > min(1, len(ids))
        or ends != sorted(ends)
        or max(ids, default=0) >= config.vocab_size
    ):
        raise ValueError("the tokens are impossible")
    return SessionTokens(max_length, policy, ids, given, start, dropped)  # type: ignore[arg-type]


def _check_segments(segments: Sequence[Segment], stored: int, tokens: SessionTokens) -> None:
    """ValueError unless the segments follow each other and are within the tokens."""
    end = 0
    for each in segments:
        room = each.start + each.chunk <= tokens.max_length
        if each.start != end or each.end <= end or not room:
            raise ValueError("the segments are impossible")
        if each.chunk and each.end - each.start > each.chunk:
            raise ValueError("the segments are impossible")
        end = each.end
    if not stored <= end <= max(0, len(tokens.ids) - 1):
        raise ValueError("the segments are impossible")
