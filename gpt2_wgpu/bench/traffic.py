"""What a step of decoding has to read, by arithmetic: the least that any kernels could do with."""

from __future__ import annotations

from collections.abc import Iterable

from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.tensors.scopes import tensors_in
from gpt2_wgpu.tensors.tensor import Tensor


def weight_bytes(lm: GPT2CausalLM) -> int:
    """Bytes of the weights that a step reads: all, once, for all rows of a batch together.

    Of an embedding only a row is read; the token embedding counts where it is also the head.
    """
    weights = lm.backbone.weights
    looked_up = [weights.wpe, *([] if weights.lm_head is weights.wte else [weights.wte])]
    return _bytes_of(tensors_in(weights)) - _bytes_of(tensors_in(looked_up))


def cache_bytes(lm: GPT2CausalLM, position: float) -> float:
    """Bytes of keys and values that a step reads for one row, whose new token is at ``position``.

    As they lie in memory, padding and all.
    """
    with tidy("traffic"):
        cache = lm.backbone.new_cache(1, 8)
        return _bytes_of(tensors_in(cache)) / cache.capacity * (position + 1)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of the buffers of ``tensors``, each counted once however many share it."""
    buffers = {id(tensor.storage): tensor.storage for tensor in tensors}
    return sum(storage.nbytes for storage in buffers.values())
