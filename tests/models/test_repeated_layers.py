"""Recordings of equal layers: the dispatches and results of layers recorded one by one."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import nn
from gpt2_wgpu.errors import DisposedTensorError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.pace import WorkPace
from gpt2_wgpu.models.repeated_layers import run_half
from gpt2_wgpu.webgpu import sync

pytestmark = pytest.mark.usefixtures("no_leak")
PROMPTS = [[(7 * t + t * t) % 99 for t in range(40)], [3, 1, 4]]


def small(dtype="float32", **switches):
    return gw.GPT2CausalLM(
        gw.GPT2Backbone(
            99, 5, 2, 32, 64, max_sequence_length=80, dtype=dtype, initializer_range=0.3, **switches
        )
    )


def texts_and_calls(lm, prompts=PROMPTS, check=False):
    """Ids of a batch, and the calls of a prefill and a step: kernel, grid, parameters."""
    rows = [list(prompt) for prompt in prompts]
    options = gw.samplers.Greedy().next_options()
    running = Generation(lm, rows, [60] * len(rows), options, [], check=check)
    try:
        while not running.done:
            for row, new in zip(rows, sync(running.advance(), "advance"), strict=True):
                row += new
    finally:
        running.close()
    ((_, parts),) = lm.kept_runs._runs
    chunks = list(parts.prefill._chunks.values())
    recordings = [parts.step, *[chunk._recording for chunk in chunks]]
    calls = [[(w.kernel, w.grid, w.params) for w in each.recorded] for each in recordings]
    return rows, calls


@pytest.mark.chromium_cases("for_cpus")
@pytest.mark.parametrize("dtype", ["float32", "float16", "q8"])
@pytest.mark.parametrize("for_cpus", [0, 1], ids=["GPU", "CPU"])
def test_results_are_those_of_layers_recorded_one_by_one(device, monkeypatch, dtype, for_cpus):
    with device.with_capabilities(prefers_no_barriers=bool(for_cpus)), small(dtype) as lm:
        found = texts_and_calls(lm)
        lm.compile("greedy")
        monkeypatch.setattr(type(lm.backbone), "_recorder", lambda *_: run_half)
        rows, calls = texts_and_calls(lm)
    assert found == (rows, calls)
    assert len(set(rows[0][40:])) > 3  # not one token again and again


@pytest.mark.parametrize("for_cpus", [0, 1], ids=["GPU", "CPU"])
def test_they_are_those_of_eager_steps(device, for_cpus):
    with device.with_capabilities(prefers_no_barriers=bool(for_cpus)), small() as lm:
        texts_and_calls(lm, check=True)


def calls_of_attention(lm, monkeypatch):
    """The layers whose Python code runs when a step is recorded."""
    seen, attend = [], nn.attend

    def noted(*args, **kwargs):
        seen.append(args[4])
        return attend(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(nn, "attend", noted)
        texts_and_calls(lm, [[5]])
    return seen


def test_python_runs_for_the_first_of_equal_layers(monkeypatch):
    with small() as lm:
        assert calls_of_attention(lm, monkeypatch) == [0]
    with small(scale_attn_by_inverse_layer_idx=True) as lm:
        assert calls_of_attention(lm, monkeypatch) == [0, 1, 2, 3, 4]


class Backbone(gw.GPT2Backbone):
    """A backbone that may get other methods."""


@pytest.mark.parametrize("place", [gw.GPT2Backbone, Backbone], ids=["class", "subclass"])
def test_replaced_methods_are_called_for_each_layer(monkeypatch, place):
    seen, mlp = [], gw.GPT2Backbone._mlp

    def noted(self, layer, x):
        seen.append(layer)
        return mlp(self, layer, x)

    monkeypatch.setattr(place, "_mlp", noted)
    with gw.GPT2CausalLM(Backbone(99, 3, 2, 32, 64, max_sequence_length=80)) as lm:
        lm.generate({"token_ids": [[5, 0, 0]], "padding_mask": [[1, 0, 0]]}, stop_token_ids=None)
    assert seen[:3] == [0, 1, 2]


@pytest.mark.parametrize("name", ["dispose", "set_weights"])
def test_weights_may_go_before_any_half_block_of_a_prefill(monkeypatch, name):
    """The first are submitted before the others are recorded, and other tasks run in between."""
    make_room = WorkPace.make_room

    async def ended(pace, work, there):
        calls.append(work)
        if len(calls) == number:
            if name == "dispose":
                lm.dispose()
            else:
                await lm.backbone.set_weights_async(weights)
        await make_room(pace, work, there)

    monkeypatch.setattr(WorkPace, "make_room", ended)
    for number in range(1, 2 * 5 + 1):
        calls = []
        with gw.tidy(), small() as lm:
            weights = lm.backbone.get_weights()
            with pytest.raises(DisposedTensorError):
                texts_and_calls(lm, [[5, 7, 1]])
        assert len(calls) == number
