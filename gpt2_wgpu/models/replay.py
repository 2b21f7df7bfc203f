"""Replay of generated tokens into a new KV cache, after the loss of a device."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.nn import History, KVCache
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.webgpu import Recording


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
