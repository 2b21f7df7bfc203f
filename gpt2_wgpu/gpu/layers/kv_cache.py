"""The keys and values of every position so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import Part
from gpt2_wgpu.gpu.layers.weights import round_up
from gpt2_wgpu.gpu.ops.arrays import copy_strided
from gpt2_wgpu.gpu.tensor import Tensor

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device


class KVCache(Tensor):
    """A tensor of logical shape [B, L, 2, S, H, D], updated in place.

    In memory: [L, 2, B, H, capacity, padded D], so that each layer is one binding and a head's
    positions follow each other; capacity and D are rounded up to multiples of eight, which also
    puts every binding on a multiple of 256 bytes. Contents are arbitrary where nothing was written.
    """

    __slots__ = ("batch_size", "capacity", "head_dim", "length", "num_heads", "padded_dim")

    def __init__(
        self,
        device: Device,
        batch_size: int,
        num_layers: int,
        length: int,
        num_heads: int,
        head_dim: int,
    ) -> None:
        self.batch_size = batch_size
        self.length = length
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.capacity = round_up(length, 8)
        self.padded_dim = round_up(head_dim, 8)
        if min(batch_size, num_layers, length, num_heads, head_dim) < 1:
            raise ShapeError(
                f"a cache needs at least one of each: batch {batch_size}, layers {num_layers}, "
                f"positions {length}, heads {num_heads}, head size {head_dim}"
            )
        shape = (batch_size, num_layers, 2, length, num_heads, head_dim)
        storage = device.memory.allocate(num_layers * self._layer_bytes, "cache")
        super().__init__(device, storage, shape, "float32", "kv cache")

    @property
    def _layer_bytes(self) -> int:
        return 8 * self.batch_size * self.num_heads * self.capacity * self.padded_dim

    def layer(self, index: int) -> Part:
        """Keys and values of one layer."""
        return Part(self, index * self._layer_bytes, self._layer_bytes)

    def keys(self, index: int) -> Part:
        return Part(self, index * self._layer_bytes, self._layer_bytes // 2)

    def values(self, index: int) -> Part:
        half = self._layer_bytes // 2
        return Part(self, index * self._layer_bytes + half, half)

    def unpacked(self) -> Tensor:
        """A copy in the logical layout, as a plain tensor [B, L, 2, S, H, D]."""
        batch, layers, _, length, heads, dim = self.shape
        physical = (layers, 2, batch, heads, self.capacity, self.padded_dim)
        steps = [math.prod(physical[axis + 1 :]) for axis in range(6)]
        order = (2, 0, 1, 4, 3, 5)  # logical axis -> physical axis
        whole = Tensor(self.device, self.storage.retain(), (math.prod(physical),), "float32")
        try:
            return copy_strided(
                whole, (batch, layers, 2, length, heads, dim), [steps[axis] for axis in order]
            )
        finally:
            whole.dispose()

    async def data(self) -> memoryview:
        """The values in the logical layout."""
        copy = self.unpacked()
        try:
            return await copy.data()
        finally:
            copy.dispose()
