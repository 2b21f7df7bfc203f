"""Attention over a key/value cache, fused into one kernel."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.matrix import round_up
from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.webgpu.device import Device

_REGISTERS_WIDTH = 128  # largest head that the kernels which keep sums in registers take
_WIDEST = 512
_TILE = 32  # queries of a head that share a workgroup
FEW_QUERIES = 64  # too few for a thread each, eight of which a core takes at once
_CHUNK = 128  # positions that the threads of a workgroup look at together
_ENOUGH = 128  # workgroups to fill a GPU
_MOST_SPLITS = 8  # the linear layer that follows reads all of them, for every few columns anew


@dataclass(frozen=True)
class SplitAttention:
    """Attention in parts, each over a share of the positions; a linear layer puts them together.

    ``sums`` [splits, B, T, H * D], ``parts`` [splits, B, T, H, 2]: see
    shaders/include/attended_parts.wgsl.
    """

    sums: Tensor
    parts: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole: [B, T, H * D]."""
        return self.sums.shape[1:]

    @property
    def device(self) -> Device:
        return self.sums.device

    @property
    def splits(self) -> int:
        return self.sums.shape[0]

    @property
    def heads(self) -> int:
        return self.parts.shape[3]


def cached_attention(
    queries: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    one_order: bool = False,
) -> Tensor | SplitAttention:
    """Causal attention of ``queries`` over what ``cache`` holds for ``layer``.

    ``queries`` [B, T, H * D], ``start`` [B] uint32: query (b, t) stands at position
    ``start[b] + t`` and sees positions up to its own. ``mask`` [B, capacity] uint32, 0 = hidden.
    ``one_order``: sums are taken in the same order for one query and for many, so that a query gets
    the same bits alone and among others; on CPU adapters that takes up to a third longer for many.
    → [B, T, H * D], in parts where few queries, one a row, face a long cache on a GPU: too few
    workgroups would read too much each. Raises ``ShapeError``, ``LimitError`` for heads wider than
    512.
    """
    batch, tokens, width = queries.shape
    heads, dim = cache.num_heads, cache.padded_dim
    if (batch, width) != (cache.batch_size, heads * dim) or start.shape != (batch,):
        raise ShapeError(
            f"cached_attention: queries {queries.shape} and start {start.shape} for a cache of "
            f"shape {cache.shape}"
        )
    if mask is not None and mask.shape != (batch, cache.capacity):
        raise ShapeError(f"cached_attention: mask {mask.shape}, not {(batch, cache.capacity)}")
    if dim > _WIDEST:
        raise LimitError(f"cached_attention: heads of {dim} exceed {_WIDEST}")
    device = queries.device
    kernel, share = _choose(device, cache, tokens, one_order)
    splits = -(-cache.length // share)
    count = batch * tokens * heads
    result: Tensor | SplitAttention
    outputs: dict[str, Binding]
    if splits == 1:
        result = empty(device, queries.shape)
        outputs = {"result": result}
    else:
        sums = empty(device, (splits, *queries.shape))
        parts = empty(device, (splits, batch, tokens, heads, 2))
        result, outputs = SplitAttention(sums, parts), {"sums": sums, "parts": parts}
    shared = {
        "attention_cpu": -(-count // 8),
        "attention_flash": batch * heads * -(-tokens // _TILE),
    }
    columns, rows, _ = groups_for(shared.get(kernel, count))
    dispatch(
        device,
        kernel,
        (columns, rows, splits),
        {
            "query": queries,
            "keys": cache.keys(layer),
            "values": cache.values(layer),
            "start": start,
            "mask": start if mask is None else mask,  # bound, but not read without HAS_MASK
            **outputs,
        },
        {
            "queries": count,
            "tokens": tokens,
            "heads": heads,
            "capacity": cache.capacity,
            "keys": cache.length,
            "causal": 1,
            "share": share,
            "scale": scale,
        },
        variant={"cache": cache.variant, "output": "whole" if splits == 1 else "parts"},
        constants={"HAS_MASK": int(mask is not None), "WIDTH8": dim // 8},
    )
    return result


def _choose(device: Device, cache: KVCache, tokens: int, one_order: bool) -> tuple[str, int]:
    """The kernel, and how many positions a workgroup looks at: all, or a share of them."""
    most, dim = device.capabilities.max_iterations, cache.padded_dim
    loops = (cache.length // 4 + 2) * (dim // 4 + 1)
    if device.capabilities.barrier_free and dim <= _REGISTERS_WIDTH and loops < most:
        few = cache.batch_size * tokens * cache.num_heads < FEW_QUERIES
        return "attention_lanes_cpu" if few or one_order else "attention_cpu", cache.length
    # A tile that is not full leaves threads idle where there are few workgroups to begin with.
    loops = (cache.length // 64 + 1) * (dim // 2 + 80)
    if tokens >= _TILE and dim <= _REGISTERS_WIDTH and loops < most and not one_order:
        return "attention_flash", cache.length
    share = cache.length
    if tokens == 1 and not one_order:
        splits = min(_MOST_SPLITS, -(-_ENOUGH // (cache.batch_size * cache.num_heads)))
        share = round_up(-(-cache.length // splits), _CHUNK)
    if -(-share // _CHUNK) * (dim // 4 + 50) > most:
        raise LimitError(
            f"cached_attention: {device.info.name} cannot loop over {cache.length:,} "
            "positions: use a shorter cache or a GPU"
        )
    return "attention", share
