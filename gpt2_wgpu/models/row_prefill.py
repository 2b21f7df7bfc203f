"""Prefill of one row at a time, for rows that join a batch."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_run import settled_cache
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.models.prefill import Prefill, cache_bytes, chunk_rows
from gpt2_wgpu.models.replay import replay_steps
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.nn import History, KVCache, round_up
from gpt2_wgpu.tensors import dispose, keep, tidy


class RowPrefill(NotCopyable):
    """KV cache of one row, in which prompts are computed before they join a batch."""

    def __init__(self, model: CachedModel, cache: KVCache) -> None:
        self.cache = cache
        self._model = model
        self._prefill = Prefill(model.backbone, cache)

    @classmethod
    async def start(cls, model: CachedModel, length: int) -> RowPrefill:
        """Allocate the cache, of ``length`` positions."""
        backbone = model.backbone
        await require_right_results(backbone.device, backbone.dtype, backbone.cache_dtype)
        with tidy("prefill"):
            cache = keep(await settled_cache(backbone, 1, length))
        return cls(model, cache)

    async def chunks(self, row: History, limit: int) -> AsyncGenerator[None, None]:
        """Write keys and values of all ids but the last; yield after each chunk of the prompt.

        In chunks as if ``row`` were generated alone, up to ``limit`` tokens; new ids, after the
        loss of a device, in steps.
        """
        backbone, prompt = self._model.backbone, row.ids[: row.prompt - 1]
        if prompt:
            alone = min(round_up(limit, 16), backbone.config.n_positions)
            cached = cache_bytes(self.cache) * round_up(alone, 16) // self.cache.capacity
            running = self._prefill.run_chunks([prompt], chunk_rows(backbone, cached))
            try:
                async for _ in running:
                    yield
            finally:
                await running.aclose()
        if len(row.ids) > row.prompt:
            steps = len(row.ids) - row.prompt
            await replay_steps(self._model, [row], self.cache, 0, steps, Pace(backbone.device))

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._prefill.close()
        dispose([self.cache])
