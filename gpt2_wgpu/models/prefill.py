"""Prefill of prompts, in chunks.

Submits are limited in time (pace.py). Chunks are not, since the last bits of f32 sums depend on
their size: they follow from model, device and batch, and are equal in every run.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import chain, groupby

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.models.control import check_control
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hooks import hooks_of
from gpt2_wgpu.models.pace import WorkPace
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors import Tensor, dispose, empty, keep, tidy
from gpt2_wgpu.webgpu import Recording
from gpt2_wgpu.webgpu.idle_recording import IdleRecording

MAX_CHUNKS = 4  # sizes of chunks that stay recorded
RECORDED_FIRST = 6  # half blocks that are submitted before the others are recorded
MAX_WORK = 0.8e9  # max operations per submit on a CPU adapter: 30 to 130 ms on two cores


def chunks(rows: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, list[Sequence[int]]]]:
    """Yield ``rows`` [B, T] in chunks of ``most`` ids: the first position, and the ids."""
    size = max(1, most // len(rows))
    for first in range(0, len(rows[0]), size):
        yield first, [row[first : first + size] for row in rows]


async def residual(
    backbone: GPT2Backbone, ids: Tensor, cache: KVCache, first: int, pace: WorkPace
) -> Tensor:
    """Return ``backbone.blocks`` of ``ids`` [B, T] from position ``first`` on, by ``pace``."""
    batch, tokens = ids.shape
    work = half_block_work(backbone, batch, tokens, first)
    start = backbone.as_uint32([first] * batch)
    halves = backbone.half_blocks(ids, cache, start)
    for part in range(2 * backbone.config.n_layer):
        await pace.make_room(work[part % 2], ids)
        x = next(halves)
    return x


class Prefill(NotCopyable):
    """Prefill of one cache: each size of chunk is recorded once, and replayed.

    Only the running chunk has live buffers; those of the others are in the pool.
    """

    def __init__(self, backbone: GPT2Backbone, cache: KVCache) -> None:
        self.cache = cache
        self._backbone = backbone
        self.chunk_rows = chunk_rows(backbone, cache_bytes(cache))
        self._chunks: dict[int, _Chunk] = {}  # by positions, the last used at the end

    async def run(self, rows: Sequence[Sequence[int]], start: int = 0) -> None:
        """Write keys and values of ``rows`` [B, T] into the cache, from position ``start`` on."""
        async for _ in self.run_chunks(rows, self.chunk_rows, start):
            pass

    async def run_chunks(
        self, rows: Sequence[Sequence[int]], most: int, start: int = 0
    ) -> AsyncGenerator[None, None]:
        """Write keys and values of ``rows`` [B, T]; yield after each chunk of ``most`` ids."""
        backbone = self._backbone
        pace = WorkPace(backbone.device, backbone.dtype)
        if hooks_of(backbone) is not None:  # they may read values
            for first, ids in chunks(rows, most):
                check_control()
                with tidy("prefill"):
                    there = backbone.as_uint32(ids)
                    await residual(backbone, there, self.cache, start + first, pace)
                yield
            return
        for tokens, same in groupby(chunks(rows, most), lambda found: len(found[1][0])):
            chunk = self._taken(tokens)
            try:
                for first, ids in same:
                    await chunk.run(backbone, ids, start + first, pace)
                    yield
            except BaseException:
                chunk.close()
                raise
            chunk.suspend()
            self._chunks[tokens] = chunk
            if len(self._chunks) > MAX_CHUNKS:
                self._chunks.pop(next(iter(self._chunks))).close()

    def _taken(self, tokens: int) -> _Chunk:
        """Return a chunk of a size, owned by the caller."""
        kept = self._chunks.pop(tokens, None)
        if kept is not None and kept.resume():
            return kept
        return _Chunk(self._backbone, self.cache, tokens)

    def close(self) -> None:
        """Free everything except the cache. Idempotent."""
        chunks, self._chunks = self._chunks, {}
        for chunk in chunks.values():
            chunk.close()


class _Chunk:
    """The dispatches of ``tokens`` positions a row, recorded in half blocks by the first run."""

    def __init__(self, backbone: GPT2Backbone, cache: KVCache, tokens: int) -> None:
        device, rows = backbone.device, cache.batch_size
        self._idle: IdleRecording | None = None
        self._recorded = 0  # half blocks
        self._recording = Recording(device, reuses_workspace=True)
        with tidy("prefill"):
            self._ids = empty(device, (rows, tokens), "uint32")
            self._start = empty(device, (rows,), "uint32")
            keep((self._ids, self._start))
        self._halves = backbone.half_blocks(self._ids, cache, self._start)

    async def run(
        self, backbone: GPT2Backbone, rows: Sequence[Sequence[int]], first: int, pace: WorkPace
    ) -> None:
        """Compute ``rows`` from position ``first`` on, in submits of ``pace``."""
        queue, version = backbone.device.queue, backbone.weights_version
        queue.upload(self._ids.storage, 0, array("I", chain.from_iterable(rows)))
        queue.upload(self._start.storage, 0, array("I", [first] * len(rows)))
        work = half_block_work(backbone, len(rows), len(rows[0]), first)
        halves = 2 * backbone.config.n_layer
        with tidy("prefill"):
            for part in range(halves):
                check_control()
                await pace.make_room(work[part % 2], self._ids)
                self._check_weights(backbone, version)  # other tasks ran meanwhile
                if part == self._recorded:
                    queue.flush()  # so that the GPU works while the rest is recorded
                    self._record(min(max(RECORDED_FIRST, 4 * part), halves))
                self._recording.replay_part(part)

    def _check_weights(self, backbone: GPT2Backbone, version: int) -> None:
        """Raise an error unless the weights of the recorded half blocks are still the model's."""
        if backbone.device is not self._recording.device:
            raise DeviceLostError("the device was lost, and replaced, during a prefill")
        backbone.check_usable()
        backbone.check_weights(version)

    def _record(self, end: int) -> None:
        """Record half blocks, up to before ``end``."""
        with self._recording:
            for _ in range(self._recorded, end):
                next(self._halves)
                self._recording.end_part()
        self._recorded = end

    def suspend(self) -> None:
        """Give the buffers to the pool until :meth:`resume`."""
        dispose((self._ids, self._start))
        self._idle = IdleRecording(self._recording)

    def resume(self) -> bool:
        """Take the buffers back; False if they are gone."""
        if self._idle is None or not self._idle.resume():
            return False
        self._idle = None
        self._ids, self._start = keep((self._ids.renewed(), self._start.renewed()))
        return True

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
            return
        dispose((self._ids, self._start))
        self._recording.close()


def half_block_work(backbone: GPT2Backbone, rows: int, tokens: int, first: int) -> tuple[int, int]:
    """Return the operations of attention and of MLP for ``tokens`` positions from ``first`` on."""
    width = backbone.config.n_embd
    attention = 2 * rows * tokens * (4 * width**2 + 2 * width * (first + tokens))
    return attention, rows * tokens * mlp_work(backbone)


def cache_bytes(cache: KVCache) -> int:
    """Return the size of all layers."""
    return sum(layer.nbytes for layer in cache.children)


def chunk_rows(backbone: GPT2Backbone, cached: int) -> int:
    """Return the rows (batch x tokens) per chunk, for a KV cache of ``cached`` bytes.

    The device's number, or half of it if the chunk's peak activations exceed 5 % of the size of
    weights and cache. Fewer on CPU adapters for a wide model, since a submit has at least half
    a block of a chunk.
    """
    config, capabilities = backbone.config, backbone.device.capabilities
    rows = capabilities.prefill_rows
    most = 4 * rows * (2 * config.n_embd + config.intermediate_dim)  # peak activations, f32
    held = stored_bytes(config, backbone.dtype, capabilities.max_binding) + cached
    return fitting_rows(backbone, rows // 2 if 20 * most > held else rows, mlp_work(backbone))


def fitting_rows(backbone: GPT2Backbone, rows: int, work: int) -> int:
    """Return ``rows``; fewer on CPU adapters if ``work`` operations per row take too long."""
    if not backbone.device.info.is_software:
        return rows
    return min(rows, max(16, int(MAX_WORK / work) // 16 * 16))


def mlp_work(backbone: GPT2Backbone) -> int:
    """Return the floating-point operations of an MLP for one row."""
    return 4 * backbone.config.n_embd * backbone.config.intermediate_dim
