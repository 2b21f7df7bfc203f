"""Cost of a token: dispatches, and no new objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from gpt2_wgpu.webgpu.waiting import sync

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.mark.native("PyTorch")
@pytest.mark.parametrize("options", [samplers.Greedy(), samplers.TopK(k=5, seed=1)], ids=repr)
@pytest.mark.parametrize("prompts", [[[1]], [[1, 2], [3]]], ids=["one row", "two rows"])
def test_a_step_creates_nothing(small_lm, device, monkeypatch, options, prompts):
    """After the first submits, tokens make no buffer, bind group, pipeline, upload or tensor."""
    generation = Generation(small_lm, prompts, [60] * len(prompts), options.next_options(), [])
    sync(generation.advance(), "advance")
    before = gw.memory()
    made = []

    def noted(name):
        return lambda *args, **kwargs: made.append(name)

    for owner, name in (
        *((device.gpu, name) for name in dir(device.gpu) if name.startswith("create_")),
        (device.gpu.queue, "write_buffer"),
        (device.memory, "register"),
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


DISPATCHES = json.loads((Path(__file__).parent / "data" / "step_dispatches.json").read_text())


@pytest.mark.native("the limits of its adapter")
@pytest.mark.parametrize("case", DISPATCHES)
def test_the_dispatches_of_a_step(device, capabilities, case):
    """Kernels and grids are those that were recorded: nothing is added for whom nothing changes."""
    adapter, dtype, shape = case.split()
    rows, length = map(int, shape.split("x"))
    for_cpus = adapter == "cpu"
    capabilities(prefers_no_barriers=for_cpus, prefers_w8a8=for_cpus, emulates_packed_dot=False)
    backbone = gw.GPT2Backbone(5000, 2, 2, 64, 256, max_sequence_length=1024, dtype=dtype)
    with gw.tidy():
        cache = backbone.new_cache(rows, length)
        histories = [History([1], 1)] * rows
        state = SamplingState.create(device, histories, [9] * rows, SamplingOptions(), [], 5000)
        step = DecodeStep(gw.GPT2CausalLM(backbone), cache, state, TokenChoice(), list)
        recording = sync(step.recorded(), "recorded")
    found = [[label.kernel, *grid] for _, _, grid, label in recording.commands]
    recording.close()
    gw.dispose(backbone)
    assert found == DISPATCHES[case]
