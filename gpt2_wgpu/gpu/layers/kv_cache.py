"""The keys and values of every position so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import Part
from gpt2_wgpu.gpu.layers.weights import round_up
from gpt2_wgpu.gpu.ops.arrays import copy_block
from gpt2_wgpu.gpu.ops.layouts import row_major
from gpt2_wgpu.gpu.tensor import Tensor, empty
from gpt2_wgpu.gpu.tidying import tidy

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device


class KVCache(Tensor):
    """A tensor of logical shape [B, L, 2, S, H, D], updated in place.

    In memory each layer is a buffer of its own, [2, B, H, capacity, padded D]: no limit on the size
    of one buffer bounds the whole, and a head's positions follow each other. Capacity and D are
    rounded up to multiples of eight, which also puts keys and values on multiples of 256 bytes.
    Contents are arbitrary where nothing was written.
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
        if min(batch_size, num_layers, length, num_heads, head_dim) < 1:
            raise ShapeError(
                f"a cache needs at least one of each: batch {batch_size}, layers {num_layers}, "
                f"positions {length}, heads {num_heads}, head size {head_dim}"
            )
        self.batch_size = batch_size
        self.length = length
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.capacity = round_up(length, 8)
        self.padded_dim = round_up(head_dim, 8)
        physical = (2, batch_size, num_heads, self.capacity, self.padded_dim)
        with tidy("kv cache") as scope:  # a raise at the tenth layer frees the first nine
            layers = scope.escape(
                tuple(empty(device, physical, kind="cache") for _ in range(num_layers))
            )
        shape = (batch_size, num_layers, 2, length, num_heads, head_dim)
        super().__init__(device, layers[0].storage.retain(), shape, "float32", "kv cache")
        self.children = layers

    def layer(self, index: int) -> Tensor:
        """Keys and values of one layer, [2, B, H, capacity, padded D]."""
        return self.children[index]

    def keys(self, index: int) -> Part:
        layer = self.children[index]
        return Part(layer, 0, layer.nbytes // 2)

    def values(self, index: int) -> Part:
        layer = self.children[index]
        return Part(layer, layer.nbytes // 2, layer.nbytes // 2)

    def view(self, shape: Sequence[int]) -> Tensor:
        """Not possible: the memory is not in the order of the shape."""
        raise ShapeError(f"a cache has a layout of its own: {self!r} cannot be seen as {shape}")

    def unpacked(self) -> Tensor:
        """A copy in the logical layout, as a plain tensor [B, L, 2, S, H, D]."""
        self.check()
        batch, _, _, length, heads, dim = self.shape
        result = empty(self.device, self.shape)
        b, layer, part, s, h, d = row_major(self.shape)
        for index, child in enumerate(self.children):
            copy_block(
                child, result, (2, batch, heads, length, dim), row_major(child.shape), 0,
                (part, b, h, s, d), index * layer,
            )  # fmt: skip
        return result

    async def data(self) -> memoryview:
        """The values in the logical layout."""
        copy = self.unpacked()
        try:
            return await copy.data()
        finally:
            copy.dispose()
