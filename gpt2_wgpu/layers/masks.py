"""Attention masks."""

from __future__ import annotations

from copy import copy
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device


def compute_causal_mask(
    batch_size: int,
    input_length: int,
    output_length: int,
    cache_index: int = 0,
    *,
    device: Device | None = None,
) -> Tensor:
    """Return a causal mask, bool [batch_size, output_length, input_length].

    Args:
        batch_size: number of rows.
        input_length: number of key positions.
        output_length: number of queries.
        cache_index: position of the first query, which attends to keys up to its own position.
        device: default: the default device.
    """
    sizes = (batch_size, input_length, output_length, cache_index)
    names = ("batch_size", "input_length", "output_length", "cache_index")
    rows, keys, queries, first = (
        integer(name, size, 0, 2**31 - 1) for name, size in zip(names, sizes, strict=True)
    )
    with tidy("compute_causal_mask") as scope:
        i = tensor([[first + query] for query in range(queries)], "int32", device=device)
        j = tensor([list(range(keys))], "int32", device=device)
        seen = ops.greater_equal(i, j)
        return scope.escape(ops.broadcast_to(seen, (rows, queries, keys)))


def merge_padding_and_attention_mask(
    inputs: Any, padding_mask: Any, attention_mask: Any
) -> Tensor | None:
    """Return the positions that both masks show, bool; None without masks.

    Args:
        inputs: the input sequence, whose device the mask is made on.
        padding_mask: [B, S], 0 or False hides a key; or None: the mask attached to ``inputs``.
        attention_mask: [B, T, S]; or None.

    Returns:
        [B, 1, S] without ``attention_mask``, else [B, T, S].

    Raises:
        ShapeError: a mask has another number of axes.
    """
    device = inputs.device if isinstance(inputs, Tensor) else None
    padding_mask = attached_mask(inputs) if padding_mask is None else padding_mask
    with tidy("merge masks") as scope:
        merged = None
        if padding_mask is not None:
            merged = ops.expand_dims(as_mask("padding_mask", padding_mask, 2, device), 1)
        if attention_mask is not None:
            seen = as_mask("attention_mask", attention_mask, 3, device)
            merged = seen if merged is None else ops.logical_and(merged, seen)
        return scope.escape(merged)


def attached_mask(values: Any) -> Any:
    """Return the mask that is attached to an input, as Keras does it; None without one."""
    return getattr(values, "_keras_mask", None)


def attach_mask(x: Tensor, mask: Any) -> Tensor:
    """Attach ``mask`` to ``x``, which owns a view of it; nothing if it is None. Return ``x``."""
    if mask is not None:
        own = copy(as_bool("mask", mask, x.device))
        x._keras_mask = own
        x.children = (*x.children, own)
    return x


def decoder_mask(
    x: Tensor,
    padding_mask: Any,
    attention_mask: Any,
    cache: Tensor | None,
    cache_index: Any,
    causal: bool,
) -> Tensor | None:
    """Return the mask of self-attention of ``x`` [B, T, D], bool [B, 1 or T, S]; None: all is seen.

    S is the length of ``cache`` [B, 2, S, H, D / H], or T without one; ``cache_index``: position of
    the first query in it, an integer, a tensor or None, which counts as 0.
    """
    merged = merge_padding_and_attention_mask(x, padding_mask, attention_mask)
    if not causal:
        return merged
    batch, queries, _ = x.shape
    if cache is not None and cache.ndim != 5:
        raise ShapeError(f"a cache has the shape [B, 2, S, H, D], not {cache.shape}")
    keys = queries if cache is None else cache.shape[2]
    first = cache_index.item() if isinstance(cache_index, Tensor) else cache_index or 0
    seen = compute_causal_mask(batch, keys, queries, first, device=x.device)
    return seen if merged is None else ops.logical_and(merged, seen)


def as_mask(name: str, values: Any, axes: int, device: Device | None) -> Tensor:
    """Return a mask as a bool tensor; ShapeError unless it has so many axes."""
    mask = as_bool(name, values, device)
    if mask.ndim != axes:
        shape = "[batch, keys]" if axes == 2 else "[batch, queries, keys]"
        raise ShapeError(f"{name} must have the shape {shape}, not {mask.shape}")
    return mask


def as_bool(name: str, values: Any, device: Device | None) -> Tensor:
    """Return an array as a bool tensor; InvalidArgumentError for text."""
    if isinstance(values, Tensor):
        return values if values.dtype == "bool" else ops.cast(values, "bool")
    if isinstance(values, str | bytes):
        raise InvalidArgumentError(f"{name} must be an array of bools, not text")
    return tensor(values, "bool", device=device)
