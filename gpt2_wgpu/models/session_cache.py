"""Keys and values of a session between its calls, in pages that forks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_step import checked_result
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.replay import replay_steps
from gpt2_wgpu.nn import PAGE, History, KVCache, load_page, new_page, save_page
from gpt2_wgpu.tensors import Tensor, dispose, keep, tidy


@dataclass(frozen=True)
class Segment:
    """Positions from ``start`` to before ``end`` that were computed together.

    ``chunk``: number of positions of the prefill's chunk, which may be more than were kept; 0: one
    after the other, by decode steps.
    """

    start: int
    end: int
    chunk: int


class SessionCache(NotCopyable):
    """Keys and values of the first tokens of a session, and how they were computed.

    ``segments`` describe the computation of positions 0 to ``computed``; ``pages`` hold the first
    ``stored`` of them. The others are computed again when they are needed, by the dispatches that
    computed them at first, so that their bits are the same: after the loss of a device, or where
    memory was short. Pages are shared with forks; a page that is shared is not written to.
    """

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.segments = list(segments)
        self.stored = 0
        self._pages: list[Tensor] = []
        self._closed = False

    @property
    def computed(self) -> int:
        """Number of positions whose computation is known."""
        return self.segments[-1].end if self.segments else 0

    @property
    def pages(self) -> Sequence[Tensor]:
        """Pages of the stored positions, ``PAGE`` in each."""
        return self._pages

    def fork(self) -> SessionCache:
        """Return a cache with the same contents, which shares the pages."""
        other = SessionCache(self.segments)
        other.adopt([copy(page) for page in self._pages], self.stored)
        return other

    def adopt(self, pages: Iterable[Tensor], stored: int) -> None:
        """Take over ``pages`` of the first ``stored`` positions."""
        self._pages = keep(list(pages))
        self.stored = stored

    def truncate(self, positions: int) -> None:
        """Forget all but the first ``positions``."""
        left = [segment for segment in self.segments if segment.start < positions]
        if left:
            left[-1] = replace(left[-1], end=min(left[-1].end, positions))
        self.segments = left
        self.stored = min(self.stored, positions)
        self._drop_pages(-(-self.stored // PAGE))

    async def load(self, model: CachedModel, prefill: Prefill, ids: Sequence[int]) -> None:
        """Write all computed positions to the cache of ``prefill``; ``ids``: tokens of the session.

        The cache must have room for the chunks of the segments.
        """
        if self._pages and self._pages[0].device is not prefill.cache.device:  # it was lost
            self.stored = 0
            self._drop_pages(0)
        for index, page in enumerate(self._pages):
            first = index * PAGE
            load_page(prefill.cache, page, first, first, min(first + PAGE, self.stored))
        for segment in self.segments:
            if segment.end <= self.stored:
                continue
            tokens = list(ids[: segment.end])
            if segment.chunk:
                chunk = tokens[segment.start :]
                chunk += [0] * (segment.chunk - len(chunk))  # more would not change earlier ones
                await compute_chunk(model, prefill, chunk, segment.start)
            else:
                history, steps = History(tokens, segment.start + 1), segment.end - segment.start
                pace = Pace(model.backbone.device)
                await replay_steps(model, [history], prefill.cache, 0, steps, pace)

    def store(self, cache: KVCache, new: Iterable[Segment]) -> None:
        """Take positions of ``new`` segments, computed after the others, from ``cache``.

        ``cache`` has all positions. Where there is no memory for pages, they are not stored.
        """
        if self._closed:
            return
        for segment in new:
            last = self.segments[-1] if self.segments else None
            if last is not None and not last.chunk and not segment.chunk:
                self.segments[-1] = replace(last, end=segment.end)
            elif segment.end > segment.start:
                self.segments.append(segment)
        begin = self.stored
        for index in range(begin // PAGE, -(-self.computed // PAGE)):
            first, end = index * PAGE, min(index * PAGE + PAGE, self.computed)
            is_new = index == len(self._pages)
            is_shared = not is_new and self._pages[index].storage.references > 1
            start = first if is_new or is_shared else max(first, begin)
            if is_new or is_shared:
                try:
                    with tidy("session"):
                        page = keep(new_page(cache))
                except OutOfGPUMemoryError:
                    return
                dispose(self._pages[index : index + 1])
                self._pages[index : index + 1] = [page]
            save_page(cache, self._pages[index], first, start, end)
            self.stored = end

    def close(self) -> None:
        """Free the pages. Idempotent."""
        self._closed = True
        self.stored = 0
        self._drop_pages(0)

    def _drop_pages(self, count: int) -> None:
        """Keep only the first ``count`` pages."""
        dropped, self._pages = self._pages[count:], self._pages[:count]
        dispose(dropped)


async def compute_chunk(
    model: CachedModel, prefill: Prefill, ids: Sequence[int], start: int
) -> None:
    """Compute keys and values of ``ids`` in one chunk, from position ``start`` on."""
    call = chosen(model, "call_with_cache")
    if is_default(call):
        await prefill.run([ids], start)
        return
    async with tidy("prefill"):
        checked_result(await settled(call(model.backbone.as_uint32([ids]), prefill.cache, start)))
