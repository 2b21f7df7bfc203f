"""Moves of batch rows within the buffers of a KV cache and a sampling state."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.sampling import SamplingState
from gpt2_wgpu.tensors.tensor import Tensor, empty


def move_rows(owner: KVCache | SamplingState | Tensor, moves: Sequence[tuple[int, int]]) -> None:
    """Copy rows on the GPU, after pending work: (from, to), where no row is in both columns.

    Rows of a tensor are those of its first axis.
    """
    if not moves:
        return
    if isinstance(owner, SamplingState | KVCache):
        slices = owner.row_slices()
    else:
        slices = [(owner, 0, owner.nbytes // owner.shape[0])]
    device = slices[0][0].device
    # WebGPU copies between different buffers only.
    between = empty(device, (max(nbytes for _, _, nbytes in slices) // 4,), "uint32")
    copies = []
    for tensor, first, nbytes in slices:
        buffer, other = tensor.storage.buffer, between.storage.buffer
        for source, target in moves:
            copies.append((buffer, first + source * nbytes, other, 0, nbytes))
            copies.append((other, 0, buffer, first + target * nbytes, nbytes))
    try:
        device.queue.flush(copies)
    finally:
        between.dispose()
