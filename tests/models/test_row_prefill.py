"""Prompts of rows that join a batch are computed as those of ``generate``."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models import prefill
from tests.models.test_continuous_batch import alone, one, read

pytestmark = pytest.mark.usefixtures("no_leak")
__all__ = ["one"]  # a fixture


def test_prompts_are_computed_in_the_chunks_of_generate(one, device, monkeypatch):
    prompt, seen = [(5 * t + t * t) % 257 for t in range(40)], []
    run = prefill._Chunk.run

    async def noted(self, backbone, rows, first, pace):
        seen.append((first, [len(row) for row in rows]))
        await run(self, backbone, rows, first, pace)

    monkeypatch.setattr(prefill._Chunk, "run", noted)

    async def texts():
        async with gw.ContinuousBatch(one) as batch:
            rows = [
                batch.submit(ids, max_new_tokens=3, stop_token_ids=None)
                for ids in (prompt, prompt[:3])
            ]
            await asyncio.gather(*map(read, rows))

    with device.with_capabilities(prefill_rows=16):
        asyncio.run(texts())
        found = seen.copy()
        seen.clear()
        alone(one, prompt, 3, stop_token_ids=None)
        alone(one, prompt[:3], 3, stop_token_ids=None)
    assert found == seen
    assert len(found) > 3
