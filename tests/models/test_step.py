"""What one token costs: dispatches, and nothing made for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models.decode_run import record_step
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from gpt2_wgpu.webgpu.waiting import sync

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.mark.native("PyTorch")
@pytest.mark.parametrize("options", [samplers.Greedy(), samplers.TopK(k=5, seed=1)], ids=repr)
@pytest.mark.parametrize("prompts", [[[1]], [[1, 2], [3]]], ids=["one row", "two rows"])
def test_a_step_creates_nothing(small_lm, device, monkeypatch, options, prompts):
    """After the first submits, tokens make no buffer, bind group, pipeline, upload or tensor."""
    generation = Generation(
        small_lm.backbone, prompts, [60] * len(prompts), options.next_options(), []
    )
    sync(generation.advance(), "advance")
    before = gw.memory()
    made = []

    def noted(name):
        return lambda *args, **kwargs: made.append(name)

    for owner, name in (
        *((device.gpu, name) for name in dir(device.gpu) if name.startswith("create_")),
        (device.gpu.queue, "write_buffer"),
        (device.memory, "born"),
        (device.memory, "allocate"),
    ):
        # What a submit is made of, and how its answer asks whether the device is still there.
        if name not in ("create_command_encoder", "create_bind_group_layout"):
            monkeypatch.setattr(owner, name, noted(name))
    while not generation.done:
        sync(generation.advance(), "advance")
    monkeypatch.undo()
    assert made == []
    assert gw.memory() == before
    generation.close()


@pytest.mark.parametrize("dtype", ["float32", "q8"])
@pytest.mark.parametrize("for_cpus", [True, False])
def test_dispatches_of_a_token(device, monkeypatch, for_cpus, dtype):
    """Five a layer, and a handful around them, whatever the length of the cache."""
    chosen = replace(device.capabilities, barrier_free=for_cpus, integer_products=for_cpus)
    monkeypatch.setattr(device, "capabilities", chosen)
    backbone = gw.GPT2Backbone(99, 12, 2, 32, 64, max_sequence_length=1024, dtype=dtype)
    with gw.tidy():
        cache = backbone.new_cache(1, 1024)
        state = SamplingState.create(device, [History([1], 1)], [9], SamplingOptions(), [], 99)
        recording = record_step(backbone, cache, state)
    assert len(recording) == 12 * 5 + 3
    recording.close()
    gw.dispose(backbone)
