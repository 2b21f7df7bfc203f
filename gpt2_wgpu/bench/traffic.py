"""Memory traffic of a decode step: the minimum number of bytes read, by calculation."""

from __future__ import annotations

from collections.abc import Iterable

from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.tensors.scopes import tensors_in
from gpt2_wgpu.tensors.tensor import Tensor


def weight_bytes(lm: GPT2CausalLM) -> int:
    """Return the bytes of weights read per step: all weights, once per batch.

    Of an embedding only a row is read; the token embedding is included if it is also the head.
    """
    weights = lm.backbone.weights
    looked_up = [weights.wpe, *([] if weights.lm_head is weights.wte else [weights.wte])]
    return _bytes_of(tensors_in(weights)) - _bytes_of(tensors_in(looked_up))


def cache_bytes(lm: GPT2CausalLM, position: float) -> float:
    """Return the bytes of keys and values read per step and row at ``position``, with padding."""
    with tidy("traffic"):
        cache = lm.backbone.new_cache(1, 8)
        return _bytes_of(tensors_in(cache)) / cache.capacity * (position + 1)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the distinct buffers of ``tensors``."""
    buffers = {id(tensor.storage): tensor.storage for tensor in tensors}
    return sum(storage.nbytes for storage in buffers.values())
