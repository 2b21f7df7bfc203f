"""GPU memory of generation: weights, KV cache, and little else."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.prefill import cache_bytes, chunk_rows
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

pytestmark = pytest.mark.native("time: GPT-2 at its true size")

POSITIONS = 1024


@pytest.mark.parametrize("dtype", WEIGHT_FORMATS)
def test_124m_at_1024_positions_takes_weights_and_cache_and_a_twentieth(dtype):
    """The most is held while a chunk of the prompt goes through; then come steps. It grows with the
    rows of a chunk: a GPU's chunks are larger than these, which take a CPU adapter less time.
    """
    with gw.Device() as device:
        backbone = gw.GPT2Backbone(50_257, 12, 12, 768, 3072, dtype=dtype, device=device)
        weights = stored_bytes(backbone.config, dtype, device.capabilities.max_binding)
        assert gw.memory(device).num_bytes_allocated_in_gpu == weights
        for cache_dtype, size in (("float32", 4), ("float16", 2)):
            backbone.cache_dtype = cache_dtype
            with device.with_capabilities(prefill_rows=ROWS):
                most, pooled = most_while_generating(backbone)
            assert most["cache"] == 2 * 12 * 768 * POSITIONS * size
            assert most["workspace"] >= ROWS * 4 * (768 + 3072)  # the chunk was looked at
            needed = weights + most["cache"]
            assert pooled <= 1.05 * needed  # buffers that are kept for the next chunk included
            on_a_gpu = device.with_capabilities(prefill_rows=ROWS_ON_A_GPU)
            with gw.tidy(), on_a_gpu, pytest.MonkeyPatch.context() as patch:
                patch.setattr(device, "info", replace(device.info, adapter_type="DiscreteGPU"))
                rows = chunk_rows(backbone, cache_bytes(backbone.new_cache(1, POSITIONS)))
            assert rows in (ROWS_ON_A_GPU, ROWS_ON_A_GPU // 2)
            # A GPU does not round activations to int8, which takes 9/8 of a byte each.
            rounded = ROWS * 3072 * 9 // 8 if dtype in ("q8", "q4") else 0
            assert (most["rest"] - rounded) * rows / ROWS <= 0.05 * needed
            gw.trim(device)
        backbone.dispose()


def most_while_generating(backbone):
    """Bytes: of each kind, all but weights and cache as "rest"; of all with what is pooled."""
    manager = backbone.device.memory
    live, pooled = {"workspace": 0, "cache": 0, "rest": 0}, 0

    def look(by_kind):
        nonlocal pooled
        rest = sum(by_kind.values()) - by_kind["weights"] - by_kind["cache"]
        now = {kind: by_kind[kind] for kind in ("workspace", "cache")} | {"rest": rest}
        live.update({kind: max(size, live[kind]) for kind, size in now.items()})
        pooled = max(pooled, sum(by_kind.values()) + manager._pooled_bytes)

    manager.observer = look
    prompt = [7919 * place % 50_257 for place in range(ROWS + 2)]
    lm = gw.GPT2CausalLM(backbone)
    run = Generation(lm, [prompt], [POSITIONS], lm.sampler.next_options(), [])
    for _ in range(2):
        sync(run.advance(), "")
    run.close()
    manager.observer = None
    return live, pooled


def rows_on_a_gpu():
    info = AdapterInfo("a GPU", "", "", "", "DiscreteGPU")
    return Capabilities.of(info, {"max-storage-buffer-binding-size": 1 << 30}).prefill_rows


ROWS, ROWS_ON_A_GPU = 64, rows_on_a_gpu()
