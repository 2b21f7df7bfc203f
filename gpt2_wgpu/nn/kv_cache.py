"""The keys and values of every position so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import Any, NoReturn

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn.matrix import round_up
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.dispatch import BufferSlice, dispatch
from gpt2_wgpu.tensors.ops.arrays import copy_block
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.strides import row_major
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device

PACKED = {"float32": "f32", "float16": "f16"}  # formats of a cache, as the kernels call them


class KVCache(Tensor):
    """A tensor of logical shape [B, L, 2, S, H, D], updated in place.

    In memory each layer is a buffer of its own, so that no limit on the size of one buffer bounds
    the whole: keys [B, H, padded D / 8, capacity, 8], then values [B, H, capacity, padded D].
    (Threads that each look at one position read neighbouring groups of a key's elements.) Capacity
    and D are rounded up to multiples of 16 and 8, which also puts the values on a multiple of 256
    bytes. Contents are arbitrary where nothing was written.

    ``cache_dtype``: "float32", or "float16", packed two in a word: half the memory and the reading.
    """

    __slots__ = (
        "batch_size", "cache_dtype", "capacity", "head_dim", "length", "num_heads", "padded_dim",
    )  # fmt: skip

    def __init__(
        self,
        device: Device,
        batch_size: int,
        num_layers: int,
        length: int,
        num_heads: int,
        head_dim: int,
        cache_dtype: str = "float32",
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
        self.cache_dtype = check_cache_dtype(cache_dtype)
        self.capacity = round_up(length, 16)
        self.padded_dim = round_up(head_dim, 8)
        physical = (2, batch_size * num_heads * self.capacity * self.padded_dim)
        with tidy("kv cache") as scope:  # a raise at the tenth layer frees the first nine
            layers = scope.escape(
                tuple(empty(device, physical, cache_dtype, kind="cache") for _ in range(num_layers))
            )
        shape = (batch_size, num_layers, 2, length, num_heads, head_dim)
        super().__init__(device, layers[0].storage.retain(), shape, "float32", "kv cache")
        self.children = layers

    def __str__(self) -> str:
        return f"KVCache {list(self.shape)} {self.cache_dtype}"

    def _over(self, copied: Callable[[Tensor], Tensor]) -> KVCache:
        """A cache of this shape, its layers copied by ``copied``."""
        cache = KVCache.__new__(KVCache)
        for name in KVCache.__slots__:
            setattr(cache, name, getattr(self.check(), name))
        with tidy("kv cache") as scope:
            layers = scope.escape(tuple(copied(layer) for layer in self.children))
        storage = layers[0].storage.retain()
        Tensor.__init__(cache, self.device, storage, self.shape, self.dtype, self.label)
        cache.children = layers
        return cache

    def __copy__(self) -> KVCache:
        """A cache in the same memory, which is freed with the last of them."""
        return self._over(copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> KVCache:
        """A cache of the same contents in memory of its own: a prompt may go on in two ways."""
        return self._over(deepcopy)

    def layer(self, index: int) -> Tensor:
        """Keys and values of one layer, as they lie in memory: [2, B * H * capacity * padded D]."""
        return self.children[index]

    def keys(self, index: int) -> BufferSlice:
        layer = self.children[index]
        return BufferSlice(layer, 0, layer.nbytes // 2)

    def values(self, index: int) -> BufferSlice:
        layer = self.children[index]
        return BufferSlice(layer, layer.nbytes // 2, layer.nbytes // 2)

    @property
    def buffer(self) -> NoReturn:
        """Not one: each layer has its own."""
        raise InvalidArgumentError("a cache has a buffer per layer: take cache.layer(i).buffer")

    def view(self, shape: Sequence[int]) -> Tensor:
        """Not possible: the memory is not in the order of the shape."""
        raise ShapeError(
            f"a cache has a layout of its own: {self} cannot be seen as {tuple(shape)}"
        )

    @property
    def variant(self) -> str:
        """What the kernels call the format."""
        return PACKED[self.cache_dtype]

    def unpacked(self) -> Tensor:
        """A copy in the logical layout, as a plain tensor [B, L, 2, S, H, D]."""
        self.check()
        batch, _, _, length, heads, dim = self.shape
        groups = self.padded_dim // 8
        result = empty(self.device, self.shape)
        b, layer, part, s, h, d = row_major(self.shape)
        with tidy("unpacked cache"):
            for index, child in enumerate(self.children):
                plain = _unpacked(child)
                for first in range(0, dim, 8):  # eight elements of each head
                    copy_block(
                        plain, result, (batch, heads, length, min(8, dim - first)),
                        (*row_major((batch, heads, groups, self.capacity, 8))[:2], 8, 1),
                        first * self.capacity, (b, h, s, d), index * layer + first * d,
                    )  # fmt: skip
                copy_block(
                    plain, result, (batch, heads, length, dim),
                    row_major((batch, heads, self.capacity, self.padded_dim)),
                    child.size // 2, (b, h, s, d), index * layer + part,
                )  # fmt: skip
        return result

    async def data(self) -> memoryview:
        """The values in the logical layout."""
        copy = self.unpacked()
        try:
            return await copy.data()
        finally:
            copy.dispose()


def check_cache_dtype(cache_dtype: str) -> str:
    """Itself; raises ``InvalidArgumentError`` for what no cache is stored as."""
    if cache_dtype not in PACKED:
        raise InvalidArgumentError(
            f"a cache is stored as {tuple(PACKED)}, not {shown(cache_dtype)}"
        )
    return cache_dtype


def _unpacked(packed: Tensor) -> Tensor:
    """``packed`` in f32."""
    if packed.dtype == "float32":
        return packed
    result = empty(packed.device, packed.shape)
    dispatch(
        packed.device,
        "unpack",
        groups_for(packed.size // 2, 64),
        {"x": packed, "result": result},
        {"pairs": packed.size // 2},
    )
    return result
