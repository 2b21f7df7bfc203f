"""Fused attention over a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn.kernel_choice import choice_for
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.matrix import round_up
from gpt2_wgpu.tensors.dispatch import Binding, dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.webgpu.device import Device

_MAX_REGISTER_HEAD_DIM = 128  # of the kernels that keep sums in registers
_MAX_HEAD_DIM = 512
_TILE = 32  # queries of a head that share a workgroup
_CHUNK = 128  # positions that the threads of a workgroup read together
_ENOUGH = 128  # workgroups that fill a GPU
_MAX_SPLITS = 8  # the next linear layer reads all of them again for every few outputs


@dataclass(frozen=True)
class AttentionPartials:
    """Split-K partials of attention, each over some of the positions; a linear layer combines them.

    ``sums`` [splits, B, T, H * D], ``stats`` [splits, B, T, H, 2]: see
    shaders/include/attention_output_partials.wgsl.
    """

    sums: Tensor
    stats: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the merged result: [B, T, H * D]."""
        return self.sums.shape[1:]

    @property
    def device(self) -> Device:
        """Device of the tensors."""
        return self.sums.device

    @property
    def splits(self) -> int:
        """Number of splits."""
        return self.sums.shape[0]

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.stats.shape[3]


def cached_attention(
    queries: Tensor,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    one_order: bool = False,
    causal: bool = True,
) -> Tensor | AttentionPartials:
    """Attention of ``queries`` over the keys and values of ``layer`` in ``cache``.

    Args:
        queries: [B, T, H * D].
        cache: the KV cache.
        layer: index of the layer.
        start: [B] uint32; query (b, t) is at position ``start[b] + t`` and attends to positions
            up to its own if ``causal``.
        scale: factor of the scores.
        mask: [B, capacity] uint32, 0 = masked.
        one_order: use one order of summation for any number of queries, so that a query has the
            same bits alone and in a batch; up to a third slower for many queries on CPU adapters.
        causal: whether a query attends to positions up to its own; otherwise it attends to all of
            the cache, and ``start`` is not read.

    Returns:
        [B, T, H * D]; as split-K partials for one query per batch row over a long cache on a GPU,
        where one workgroup per query would be too few.

    Raises:
        ShapeError: the shapes are incompatible.
        LimitError: a head is larger than 512.
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
    if dim > _MAX_HEAD_DIM:
        raise LimitError(f"cached_attention: heads of {dim} exceed {_MAX_HEAD_DIM}")
    device = queries.device
    kernel, split_length = _choose(device, cache, tokens, one_order)
    splits = -(-cache.length // split_length)
    count = batch * tokens * heads
    result: Tensor | AttentionPartials
    outputs: dict[str, Binding]
    if splits == 1:
        result = empty(device, queries.shape)
        outputs = {"result": result}
    else:
        sums = empty(device, (splits, *queries.shape))
        stats = empty(device, (splits, batch, tokens, heads, 2))
        result = AttentionPartials(sums, stats)
        outputs = {"partial_sums": sums, "partial_stats": stats}
    groups = {
        "attention_cpu": -(-count // 8),
        "attention_flash": batch * heads * -(-tokens // _TILE),
    }
    x, y, _ = groups_for(groups.get(kernel, count))
    dispatch(
        device,
        kernel,
        (x, y, splits),
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
            "tokens_per_row": tokens,
            "heads": heads,
            "capacity": cache.capacity,
            "keys": cache.length,
            "causal": int(causal),
            "split_length": split_length,
            "scale": scale,
        },
        variant={"cache": cache.variant, "output": "whole" if splits == 1 else "partials"},
        constants={"HAS_MASK": int(mask is not None), "HEAD_DIM8": dim // 8},
    )
    return result


def _choose(device: Device, cache: KVCache, tokens: int, one_order: bool) -> tuple[str, int]:
    """Kernel, and number of positions of a split."""
    if (choose := choice_for("cached_attention")) is not None:
        kernel, split_length = choose(cache)
        return str(kernel), int(split_length)
    most, dim = device.capabilities.max_iterations, cache.padded_dim
    loops = (cache.length // 4 + 2) * (dim // 4 + 1)
    if device.capabilities.prefers_no_barriers and dim <= _MAX_REGISTER_HEAD_DIM and loops < most:
        few = cache.batch_size * tokens * cache.num_heads < device.capabilities.few_queries
        return "attention_lanes_cpu" if few or one_order else "attention_cpu", cache.length
    # A partial tile would leave threads idle, and few tokens are few workgroups.
    loops = (cache.length // 64 + 1) * (dim // 2 + 80)
    if tokens >= _TILE and dim <= _MAX_REGISTER_HEAD_DIM and loops < most and not one_order:
        return "attention_flash", cache.length
    split_length = cache.length
    if tokens == 1 and not one_order:
        splits = min(_MAX_SPLITS, -(-_ENOUGH // (cache.batch_size * cache.num_heads)))
        split_length = round_up(-(-cache.length // splits), _CHUNK)
    if -(-split_length // _CHUNK) * (dim // 4 + 50) > most:
        raise LimitError(
            f"cached_attention: {device.info.name} cannot loop over {cache.length:,} "
            "positions: use a shorter cache or a GPU"
        )
    return "attention", split_length
