"""What generating takes on the GPU: weights, keys and values, and little else."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.gpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.gpu.waiting import sync
from gpt2_wgpu.models.generation import Generation
from gpt2_wgpu.models.layouts import stored_bytes

pytestmark = pytest.mark.native("time: GPT-2 at its true size")

POSITIONS = 1024


def test_124m_at_1024_positions_takes_weights_and_cache_and_a_twentieth():
    """In q8, where a twentieth is less than in float16 or float32, and the rest is as large.

    The most is held while a chunk of the prompt goes through; then come steps. It grows with the
    rows of a chunk: a GPU's chunks are larger than a CPU adapter's, which would take it minutes.
    """
    with gw.Device() as device:
        backbone = gw.GPT2Backbone(50_257, 12, 12, 768, 3072, dtype="q8", device=device)
        lm, manager = gw.GPT2CausalLM(backbone), device.memory
        weights = stored_bytes(backbone.config, "q8", device.capabilities.max_binding)
        assert gw.memory(device).num_bytes_allocated_in_gpu == weights
        live, pooled = {"workspace": 0, "cache": 0, "rest": 0}, 0

        def look(by_kind):
            nonlocal pooled
            rest = sum(by_kind.values()) - by_kind["weights"] - by_kind["cache"]
            now = {kind: by_kind[kind] for kind in ("workspace", "cache")} | {"rest": rest}
            live.update({kind: max(size, live[kind]) for kind, size in now.items()})
            pooled = max(pooled, sum(by_kind.values()) + manager._pooled_bytes)

        manager.observer = look
        rows = device.capabilities.prefill_rows
        prompt = [7919 * place % 50_257 for place in range(rows + 2)]
        run = Generation(backbone, [prompt], [POSITIONS], lm.sampler.next_options(), [])
        for _ in range(2):
            sync(run.advance(), "")
        run.close()
        lm.dispose()
    assert live["cache"] == 2 * 12 * 768 * POSITIONS * 4
    needed = weights + live["cache"]
    assert live["workspace"] >= rows * 4 * (768 + 3072)  # the chunk was looked at
    assert pooled <= 1.05 * needed  # buffers that are kept for the next chunk included
    assert live["rest"] * most_rows() / rows <= 0.05 * needed


def most_rows():
    """Rows of a chunk on a GPU."""
    info = AdapterInfo("a GPU", "", "", "", "DiscreteGPU")
    return Capabilities.of(info, {"max-storage-buffer-binding-size": 1 << 30}).prefill_rows
