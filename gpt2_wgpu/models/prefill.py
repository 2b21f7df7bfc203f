"""Tokens that are known go through the model: prompts in chunks, texts after a loss step by step.

Submits are bounded in time (pace.py). Chunks are not made by time, since the last bits of f32 sums
depend on their size: they follow from model, device and batch, and are the same in every run.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence

from gpt2_wgpu.models.decode_step import CachedModel
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.pace import Pace, WorkPace
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.nn import History, KVCache
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.webgpu import Recording

MOST_WORK = 0.8e9  # operations that a CPU adapter is given at once: 30 to 130 ms on two cores


def chunks(
    backbone: GPT2Backbone, rows: Sequence[Sequence[int]], cache: KVCache
) -> Iterator[tuple[int, list[Sequence[int]]]]:
    """``rows`` [B, T] in pieces of some positions: the first of each piece, and its ids."""
    length = len(rows[0])
    size = max(1, chunk_rows(backbone, cache) // len(rows))
    for first in range(0, length, size):
        yield first, [row[first : first + size] for row in rows]


async def residual(
    backbone: GPT2Backbone, ids: Tensor, cache: KVCache, first: int, pace: WorkPace
) -> Tensor:
    """``backbone.blocks`` of ``ids`` [B, T] at positions ``first`` .., in submits of ``pace``."""
    (batch, tokens), config = ids.shape, backbone.config
    attention = 2 * batch * tokens * (4 * config.n_embd**2 + 2 * config.n_embd * (first + tokens))
    start = backbone.as_uint32([first] * batch)
    halves = backbone.half_blocks(ids, cache, start)
    for _ in range(config.n_layer):
        await pace.make_room(attention, ids)
        next(halves)
        await pace.make_room(batch * tokens * mlp_work(backbone), ids)
        x = next(halves)
    return x


def chunk_rows(backbone: GPT2Backbone, cache: KVCache) -> int:
    """Rows (batch x tokens) of a chunk: what suits the device, or half of it where the chunk would
    hold more than a twentieth of what weights and ``cache`` do. On CPU adapters fewer for a wide
    model, since a submit holds at least half a block of a chunk.
    """
    config, capabilities = backbone.config, backbone.device.capabilities
    rows = capabilities.prefill_rows
    most = 4 * rows * (2 * config.n_embd + config.intermediate_dim)  # in the midst of an MLP
    held = stored_bytes(config, backbone.dtype, capabilities.max_binding)
    held += sum(layer.nbytes for layer in cache.children)
    return fitting_rows(backbone, rows // 2 if 20 * most > held else rows, mlp_work(backbone))


def fitting_rows(backbone: GPT2Backbone, rows: int, work: int) -> int:
    """``rows``; on CPU adapters fewer where ``work`` operations a row take too long at once."""
    if not backbone.device.info.is_software:
        return rows
    return min(rows, max(16, int(MOST_WORK / work) // 16 * 16))


def mlp_work(backbone: GPT2Backbone) -> int:
    """Floating-point operations of an MLP, for one row."""
    return 4 * backbone.config.n_embd * backbone.config.intermediate_dim


async def replay_texts(model: CachedModel, rows: Sequence[History], cache: KVCache) -> None:
    """Write keys and values of generated tokens, but the newest of each row, into ``cache``.

    By the dispatches of a step, token after token, as they were computed at first: a text that
    goes on after a loss of the device has the very bits of one that was not disturbed.
    """
    steps = max(len(row.ids) - row.prompt for row in rows)
    if not steps:
        return
    backbone, call = model.backbone, chosen(model, "call_with_cache")
    as_uint32, queue, pace = backbone.as_uint32, backbone.device.queue, Pace()
    async with tidy("replay"):
        # A row that is finished stays where it is, as it does in a step.
        places = [
            [min(row.prompt - 1 + step, len(row.ids) - 1) for row in rows] for step in range(steps)
        ]
        token, position = as_uint32([[0]] * len(rows)), as_uint32([0] * len(rows))
        recording = None
        if is_default(call):
            with Recording(backbone.device) as recording, tidy("step"):
                backbone.blocks(token, cache, position)
        try:
            first, begun = 0, time.perf_counter()
            while first < steps:
                count = pace.steps(steps - first)
                for now in places[first : first + count]:
                    ids = [row.ids[place] for row, place in zip(rows, now, strict=True)]
                    queue.upload(token.storage, 0, array("I", ids))
                    queue.upload(position.storage, 0, array("I", now))
                    if recording is not None:
                        recording.replay()
                        continue
                    with tidy("step"):
                        await settled(call(token, cache, position))
                await queue.read([(token.storage, 0, 4)])
                ended = time.perf_counter()
                pace.took(ended - begun, count)
                first, begun = first + count, ended
        finally:
            if recording is not None:
                recording.close()
