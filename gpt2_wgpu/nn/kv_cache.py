"""KV cache: keys and values of all previous positions."""

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
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.weight_formats import CACHE_DTYPES, WEIGHT_FORMATS


class KVCache(Tensor):
    """KV cache of logical shape [B, L, 2, S, H, D], updated in place.

    Each layer has its own buffer, so that the total size is not limited by the maximal buffer size:
    keys [B, H, padded D / 8, capacity, 8], then values [B, H, capacity, padded D]. (Threads for
    adjacent positions read adjacent groups of key elements.) Capacity and D are rounded up to
    multiples of 16 and 8, which also aligns the values to 256 bytes. Unwritten contents are
    undefined.

    ``cache_dtype``: "float32", or "float16", packed in pairs: half the memory and traffic.
    """

    __slots__ = (
        "allocated_rows", "batch_size", "cache_dtype", "capacity", "head_dim", "length",
        "num_heads", "padded_dim",
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
                f"sizes of a cache must be at least 1: batch {batch_size}, layers {num_layers}, "
                f"positions {length}, heads {num_heads}, head size {head_dim}"
            )
        self.batch_size = self.allocated_rows = batch_size
        self.length = length
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.cache_dtype = check_cache_dtype(cache_dtype)
        self.capacity = round_up(length, 16)
        self.padded_dim = round_up(head_dim, 8)
        physical = (2, batch_size * num_heads * self.capacity * self.padded_dim)
        with tidy("kv cache") as scope:  # an exception frees the layers allocated before
            layers = scope.escape(
                tuple(empty(device, physical, cache_dtype, kind="cache") for _ in range(num_layers))
            )
        shape = (batch_size, num_layers, 2, length, num_heads, head_dim)
        super().__init__(device, layers[0].storage.retain(), shape, "float32", "kv cache")
        self.children = layers

    def __str__(self) -> str:
        return f"KVCache {list(self.shape)} {self.cache_dtype}"

    def _over(self, copied: Callable[[Tensor], Tensor]) -> KVCache:
        """Return a cache of this shape with layers copied by ``copied``."""
        cache = KVCache.__new__(KVCache)
        for name in KVCache.__slots__:
            setattr(cache, name, getattr(self, name))
        with tidy("kv cache") as scope:
            layers = scope.escape(tuple(copied(layer) for layer in self.children))
        storage = layers[0].storage.retain()
        Tensor.__init__(cache, self.device, storage, self.shape, self.dtype, self.label)
        cache.children = layers
        return cache

    def __copy__(self) -> KVCache:
        """Return a cache that shares the memory, which is freed with the last one."""
        self.check()
        return self._over(copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> KVCache:
        """Return a copy with its own memory, e.g. to continue a prompt in two ways."""
        self.check()
        return self._over(deepcopy)

    def renewed(self) -> KVCache:
        """A new cache over the buffers of this disposed one."""
        return self._over(Tensor.renewed)

    def first_rows(self, rows: int) -> KVCache:
        """Return a view of the first ``rows``, in the same memory."""
        view = self._over(copy)
        view.batch_size, view.shape = rows, (rows, *self.shape[1:])
        return view

    def row_slices(self) -> list[tuple[Tensor, int, int]]:
        """Return tensor, first byte and bytes per row of each array of rows: keys, then values."""
        halves = [(layer, layer.nbytes // 2) for layer in self.children]
        return [
            (layer, first, half // self.allocated_rows)
            for layer, half in halves
            for first in (0, half)
        ]

    def __getitem__(self, key: Any) -> KVCache:
        """One layer, ``cache[:, i]`` or ``cache[:, i, ...]``: a cache that shares its memory.

        Raises:
            InvalidArgumentError: another kind of index, or there is no such layer.
        """
        self.check()
        places = key if isinstance(key, tuple) else (key,)
        if places[2:] not in ((), (...,)) or len(places) < 2 or places[0] != slice(None):
            raise InvalidArgumentError(
                f"a cache is indexed by layer, cache[:, i], not by {shown(key)}: for values take "
                "cache.unpacked()"
            )
        count = len(self.children)
        place = integer("layer of a cache", places[1], -count, count - 1)
        layer = KVCache.__new__(KVCache)
        for name in KVCache.__slots__:
            setattr(layer, name, getattr(self, name))
        with tidy("kv cache") as scope:
            (child,) = layers = scope.escape((copy(self.children[place]),))
        shape = (self.shape[0], 1, *self.shape[2:])
        Tensor.__init__(layer, self.device, child.storage.retain(), shape, self.dtype, self.label)
        layer.children = layers
        return layer

    def layer(self, index: int) -> Tensor:
        """Return one layer in its memory layout: [2, B * H * capacity * padded D]."""
        return self.children[index]

    def keys(self, index: int) -> BufferSlice:
        """Return the keys of a layer."""
        layer = self.children[index]
        return BufferSlice(layer, 0, layer.nbytes // 2)

    def values(self, index: int) -> BufferSlice:
        """Return the values of a layer."""
        layer = self.children[index]
        return BufferSlice(layer, layer.nbytes // 2, layer.nbytes // 2)

    @property
    def buffer(self) -> NoReturn:
        """Not available: each layer has its own buffer."""
        raise InvalidArgumentError("a cache has a buffer per layer: take cache.layer(i).buffer")

    def view(self, shape: Sequence[int]) -> Tensor:
        """Not available: the memory layout differs from the logical shape."""
        raise ShapeError(
            f"a cache has a special memory layout: {self} cannot be viewed as {tuple(shape)}"
        )

    @property
    def variant(self) -> str:
        """Name of the format in kernels."""
        return WEIGHT_FORMATS[self.cache_dtype].name

    def unpacked(self) -> Tensor:
        """Return a copy in the logical layout, a plain tensor [B, L, 2, S, H, D]."""
        self.check()
        batch, _, _, length, heads, dim = self.shape
        groups = self.padded_dim // 8
        result = empty(self.device, self.shape)
        b, layer, part, s, h, d = row_major(self.shape)
        with tidy("unpacked cache"):
            for index, child in enumerate(self.children):
                plain = _unpacked(child)
                for first in range(0, dim, 8):  # 8 elements per head
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
        """Read the values in the logical layout."""
        copy = self.unpacked()
        try:
            return await copy.data()
        finally:
            copy.dispose()


def check_cache_dtype(cache_dtype: str) -> str:
    """Return ``cache_dtype``; InvalidArgumentError if it is unknown."""
    if cache_dtype not in CACHE_DTYPES:
        raise InvalidArgumentError(
            f"cache_dtype must be one of {CACHE_DTYPES}, not {shown(cache_dtype)}"
        )
    return cache_dtype


def default_cache_dtype(device: Device) -> str:
    """Return "float16" on a GPU, "float32" on a CPU adapter."""
    return "float16" if device.capabilities.prefers_f16_cache else "float32"


def _unpacked(packed: Tensor) -> Tensor:
    """Return ``packed`` as f32."""
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
