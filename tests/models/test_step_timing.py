"""Times of a decode step: its dispatches, and the bytes that they read and write."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from weakref import WeakKeyDictionary

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.bench import traffic
from gpt2_wgpu.diagnostics import bandwidth, profiling
from gpt2_wgpu.diagnostics.bandwidth import peak_read_bandwidth_async
from gpt2_wgpu.errors import BusyError, InvalidArgumentError
from gpt2_wgpu.models import step_timing
from gpt2_wgpu.webgpu.pipelines import shader_directory


def test_dispatches_are_those_of_a_step(tales, no_leak):
    found = gw.inspect.step_times(tales, "The king", steps=4)
    assert (found.steps, found.position) == (4, 3)
    before = tales.device.queue.dispatches
    tales.generate("The king", max_new_tokens=1, sampler="greedy", stop_token_ids=None)
    once = tales.device.queue.dispatches - before
    before = tales.device.queue.dispatches
    tales.generate("The king", max_new_tokens=3, sampler="greedy", stop_token_ids=None)
    assert tales.device.queue.dispatches - before - once == 2 * len(found.dispatches)
    assert found.dispatches[0].kernel == "embed"
    assert all((shader_directory() / f"{each.kernel}.wgsl").is_file() for each in found.dispatches)


@pytest.mark.parametrize("dtype", ["float32", "float16", "q8"])
def test_bytes_are_the_weights_and_the_cache(device, dtype):
    """The rest (activations, biases) is little."""
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
        found = gw.inspect.step_times(lm, "The king", steps=3)
        heads = sum(each.nbytes for each in found.dispatches if "weights" in each.shapes)
        weights = traffic.weight_bytes(lm)
        assert weights <= heads <= 1.1 * weights
        attention = [each for each in found.dispatches if "keys" in each.shapes]
        assert len(attention) == lm.backbone.num_layers
        small = sum(each.nbytes for each in attention)
        longer = gw.inspect.step_times(lm, "The king" + " and" * 64, steps=3)
        large = sum(each.nbytes for each in longer.dispatches if "keys" in each.shapes)
        tokens = longer.position - found.position
        assert tokens == 64
        per_token = traffic.cache_bytes(lm, 1) - traffic.cache_bytes(lm, 0)
        assert large - small == pytest.approx(tokens * per_token)


def test_times_are_means(tales, monkeypatch):
    """With seconds of a counter: mean of each dispatch over the steps, in order."""
    rows = profiling.DispatchTimer.rows

    async def counted(timer):
        found = await rows(timer)
        size = sum(row.kernel == "embed" for row in found)
        assert size >= 3
        return [
            profiling.Row(row.kernel, row.shapes, row.workgroups, float(i), row.nbytes)
            for i, row in enumerate(found)
        ]

    monkeypatch.setattr(profiling.DispatchTimer, "rows", counted)
    found = gw.inspect.step_times(tales, "The king", steps=3)
    times = [each.seconds for each in found.dispatches]
    first = found.dispatches[0]
    assert first.seconds is not None
    assert times == [first.seconds + i for i in range(len(times))]
    assert found.seconds == pytest.approx(len(times) * (first.seconds + (len(times) - 1) / 2))
    assert first.bytes_per_second == first.nbytes / first.seconds


def test_without_timestamp_queries(tales, monkeypatch):
    class Untimed(profiling.DispatchTimer):
        def __init__(self, device):
            super().__init__(device)
            self._timed = False

    monkeypatch.setattr(profiling, "DispatchTimer", Untimed)
    found = gw.inspect.step_times(tales, [5, 6], steps=2)
    assert found.seconds is None
    assert found.dispatches[0].seconds is found.dispatches[0].bytes_per_second is None
    assert found.nbytes > 1e6
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.dispatches)
    assert "<td>embed</td><td>4096 x 256</td><td></td>" in html


def test_arguments(tales):
    most = tales.backbone.config.n_positions
    for steps in (0, most - 1, 1.5):
        with pytest.raises(InvalidArgumentError, match="steps"):
            gw.inspect.step_times(tales, "The king", steps=steps)
    with pytest.raises(InvalidArgumentError, match="no token"):
        gw.inspect.step_times(tales, [])
    with pytest.raises(InvalidArgumentError, match="token_ids"):
        gw.inspect.step_times(tales, [10**6])
    long = gw.inspect.step_times(tales, [7] * (most - 1), steps=2)
    assert long.position == most - 3  # its end, with room for a first token and the steps


def test_other_work_meanwhile(tales, monkeypatch):
    continued = step_timing._continued

    async def disturbed(lm, ids, tokens):
        await continued(lm, ids, tokens)
        if tokens > 1:
            gw.ops.add(gw.tensor([1.0], device=lm.device), 1.0)

    monkeypatch.setattr(step_timing, "_continued", disturbed)
    with gw.tidy(), pytest.raises(BusyError, match="measure again"):
        gw.inspect.step_times(tales, "The king", steps=2)


def test_calls_of_other_tasks_wait(tales):
    async def both():
        return await asyncio.gather(
            gw.inspect.step_times_async(tales, "The king", 2),
            tales.generate_async("The king", max_new_tokens=4, sampler="greedy"),
            gw.inspect.step_times_async(tales, "The king", 2),
        )

    first, text, second = asyncio.run(both())
    kernels = [[each.kernel for each in found.dispatches] for found in (first, second)]
    assert kernels[0] == kernels[1]
    assert text == tales.generate("The king", max_new_tokens=4, sampler="greedy")


def test_the_share_of_the_peak(tales, monkeypatch):
    """It is measured once for a device."""
    measured = []

    async def small(device):
        measured.append(device)
        return await peak_read_bandwidth_async(device, 1 << 20, 1)

    monkeypatch.setattr(bandwidth, "peak_read_bandwidth_async", small)
    monkeypatch.setattr(bandwidth, "_known", WeakKeyDictionary())
    times = [gw.inspect.step_times(tales, "The", 2, peak=True) for _ in range(2)]
    assert measured == [tales.device]
    first = times[0]
    peak, seconds = times[1].peak_read_bandwidth, first.seconds
    assert peak and seconds and peak == first.peak_read_bandwidth
    assert first.bandwidth_utilisation == first.nbytes / seconds / peak
    assert f", {first.bandwidth_utilisation:.0%} of the peak read bandwidth<" in first._repr_html_()
    without = gw.inspect.step_times(tales, "The", 2)
    assert without.bandwidth_utilisation is without.peak_read_bandwidth is None
    assert "peak" not in without._repr_html_()
    assert replace(first, dispatches=()).bandwidth_utilisation is None
    assert first.peak_error is without.peak_error is None


def test_the_times_stay_without_memory_for_the_peak(tales, monkeypatch, no_leak):
    async def large(device):
        return await peak_read_bandwidth_async(device, 1 << 50)

    monkeypatch.setattr(bandwidth, "peak_read_bandwidth_async", large)
    monkeypatch.setattr(bandwidth, "_known", WeakKeyDictionary())
    found = gw.inspect.step_times(tales, "The", 2, peak=True)
    assert found.seconds and found.peak_read_bandwidth is found.bandwidth_utilisation is None
    assert found.peak_error and "bytes to read" in found.peak_error
    assert "; the peak read bandwidth was not measured: " in found._repr_html_()
