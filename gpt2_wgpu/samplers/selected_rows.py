"""Rows of the caches that KerasHub's sampler call gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import ops


def selected(cache: Any, rows: Sequence[int]) -> Any:
    """Return the ``rows`` of all tensors in ``cache``."""
    if cache is None:
        return None
    if isinstance(cache, dict):
        return {key: selected(value, rows) for key, value in cache.items()}
    if isinstance(cache, list | tuple):
        return type(cache)(selected(value, rows) for value in cache)
    if isinstance(cache, KVCache):
        return nn.select_rows(cache, rows)
    return ops.gather(cache, list(rows))
