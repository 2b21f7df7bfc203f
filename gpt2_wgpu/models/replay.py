"""Replay of generated tokens into a new KV cache, after the loss of a device."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.hooks import hooks_of
from gpt2_wgpu.models.live_rows import COMPACTED_EVERY, LiveRows
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.nn import History, KVCache
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.webgpu import Recording


async def replay_texts(
    model: CachedModel,
    rows: Sequence[History],
    live: LiveRows,
    ended: Sequence[int | None] | None,
) -> int:
    """Write keys and values of generated tokens, but the newest of each row → number of steps.

    By the dispatches of a step, token after token, as they were computed at first: a text that
    goes on after a loss of the device has the very bits of one that was not disturbed. ``ended``:
    see ``LiveRows.compact``; None: no row leaves the step.
    """
    steps = max(len(row.ids) - row.before for row in rows)
    pace, first = Pace(model.backbone.device), 0
    while first < steps:
        last = steps
        if ended is not None:
            live.compact(first, ended)
            intervals = range(first + COMPACTED_EVERY, steps, COMPACTED_EVERY)
            changes = (at for at in intervals if len(live.staying(at, ended)) < len(live.rows))
            last = next(changes, steps)
        now = [rows[index] for index in live.rows]
        await replay_steps(model, now, live.cache, first, last, pace)
        first = last
    return steps


async def replay_steps(
    model: CachedModel, rows: Sequence[History], cache: KVCache, first: int, last: int, pace: Pace
) -> None:
    """Run the steps from ``first`` to before ``last`` for the ``rows`` of ``cache``."""
    backbone, call = model.backbone, chosen(model, "call_with_cache")
    as_uint32, queue = backbone.as_uint32, backbone.device.queue
    async with tidy("replay"):
        # A row that is finished stays where it is, as it does in a step.
        places = [
            [min(row.before - 1 + step, len(row.ids) - 1) for row in rows]
            for step in range(first, last)
        ]
        token, position = as_uint32([[0]] * len(rows)), as_uint32([0] * len(rows))
        recording = None
        if is_default(call) and hooks_of(backbone) is None:  # hooks may read values
            with Recording(backbone.device) as recording, tidy("step"):
                backbone.blocks(token, cache, position)
        try:
            done, begun = 0, time.perf_counter()
            while done < len(places):
                count = pace.steps(len(places) - done)
                for now in places[done : done + count]:
                    ids = [row.ids[place] for row, place in zip(rows, now, strict=True)]
                    queue.upload(token.storage, 0, array("I", ids))
                    queue.upload(position.storage, 0, array("I", now))
                    if recording is not None:
                        recording.replay()
                        continue
                    with tidy("step"):
                        await settled(call(token, cache, position))
                await queue.read([(token.storage, 0, 4)])
                finished = time.perf_counter()
                pace.took(finished - begun, count)
                done, begun = done + count, finished
        finally:
            if recording is not None:
                recording.close()
