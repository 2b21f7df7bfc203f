"""Inputs of the benchmark's figures: shapes, traffic, clocks and counters."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.bench import RandomModel, machine, traffic
from gpt2_wgpu.bench.runs import prompts_of, timed
from gpt2_wgpu.errors import BenchmarkError, InvalidArgumentError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.webgpu import sync, time_waiting

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.mark.parametrize(
    ("text", "layers", "width"), [("124M", 12, 768), ("1558M", 48, 1600), ("3x128", 3, 128)]
)
def test_shapes(text, layers, width):
    assert RandomModel.parse(text) == RandomModel(f"random {text}", layers, width)


@pytest.mark.parametrize(
    "text", ["", "124", "124m", "0x64", "2x65", "2x0", "x64", "2x64x", "-2x64"]
)
def test_what_is_no_shape(text):
    with pytest.raises(
        InvalidArgumentError, match="is not a model size: use 124M, 355M, 774M, 1558M, or"
    ):
        RandomModel.parse(text)


def test_random_weights_have_gpt2s_vocabulary_and_vary(lm):
    assert lm.backbone.config.vocab_size == 50_257
    assert lm.backbone.config.n_head == 1
    ((_, wte),) = lm.backbone.weights.wte.parts
    with gw.tidy():
        assert np.std(wte.numpy()) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("value", [-0.1, float("nan"), "0.1"])
def test_an_initializer_range_is_a_number(device, value):
    with pytest.raises(InvalidArgumentError, match="initializer_range"):
        gw.GPT2Backbone(9, 1, 1, 8, 8, device=device, initializer_range=value)


def test_bytes_of_a_step(device):
    found = {}
    for dtype in ("float32", "float16"):
        backbone = gw.GPT2Backbone(
            100, 2, 2, 64, 128, max_sequence_length=512, dtype=dtype, device=device
        )
        with gw.GPT2CausalLM(backbone) as lm:
            found[dtype] = traffic.weight_bytes(lm)
            assert traffic.cache_bytes(lm, 9) == 10 * 2 * 2 * 64 * 4
    matrices = 100 * 64 + 2 * (4 * 64 * 64 + 2 * 64 * 128)  # without the positions
    vectors = 2 * (4 * 64 + 3 * 64 + 64 + 128 + 64) + 2 * 64
    assert found["float32"] - found["float16"] == 2 * matrices
    # What is computed from the vectors once, and kept for the kernels, is read as well.
    assert 0 <= found["float32"] - 4 * (matrices + vectors) <= 0.03 * found["float32"]


def test_prompts_repeat_and_rows_differ():
    prompts = prompts_of(4096, 3, 20)
    assert prompts == prompts_of(4096, 3, 20)
    assert len({tuple(row) for row in prompts}) == 3
    assert max(map(max, prompts)) < 4096


def test_a_run(lm):
    run = sync(timed(lm, prompts_of(50_257, 2, 5), 9), "timed")
    assert [len(row) for row in run.tokens] == [9, 9]
    assert 1 <= run.decode_steps <= 8
    assert run.tokens_per_second == pytest.approx(2 * run.decode_steps / run.decode_seconds)
    assert 0 < run.host_seconds < run.decode_seconds
    assert run.submits >= 1
    assert run.dispatches >= run.decode_steps * 10


def test_one_more_token_is_one_more_step(lm):
    counts = [sync(timed(lm, [[1, 2, 3]], new), "timed").dispatches for new in (1, 2, 3, 9)]
    step = counts[1] - counts[0]
    assert step > 10
    assert [count - counts[0] for count in counts] == [0, step, 2 * step, 8 * step]


def test_a_run_with_nothing_left_to_time(lm, monkeypatch):
    advance = Generation.advance

    async def all_at_once(self):
        rows = await advance(self)
        while not self.done:
            for row, new in zip(rows, await advance(self), strict=True):
                row += new
        return rows

    monkeypatch.setattr(Generation, "advance", all_at_once)
    with pytest.raises(BenchmarkError, match="all 4 tokens arrived with the first submit"):
        sync(timed(lm, [[1]], 4), "timed")


def test_the_queue_counts(device):
    with gw.tidy():
        x = gw.tensor([1.0, 2.0])
        device.queue.flush()
        before = device.queue.submits, device.queue.dispatches
        (x + 1) * 2
        device.queue.flush()
        device.queue.flush()
        assert (device.queue.submits, device.queue.dispatches) == (before[0] + 1, before[1] + 4)


def test_waiting_is_timed_inside_only(device):
    with gw.tidy():
        x = gw.tensor([1.0, 2.0])
        with time_waiting() as waited:
            assert waited.seconds == 0
            x.tolist()
            once = waited.seconds
            time.sleep(0.01)
            assert waited.seconds == once
        x.tolist()
    assert 0 < waited.seconds == once
    assert 0 <= waited.processor_seconds <= once + 0.01


def test_others_use_of_the_processor(monkeypatch, tmp_path):
    stat, clock = tmp_path / "stat", SimpleNamespace(now=100.0, own=7.0)
    monkeypatch.setattr(machine, "_STAT", stat)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(machine.os, "times", lambda: (clock.own, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    stat.write_text("cpu  1000 0 0 5000 50 0 0 0 0 0\ncpu0 1 2 3 4\n")
    use = machine.ProcessorUse()
    # In ten seconds 15 were spent by two cores, two of them by this process, one stolen.
    stat.write_text("cpu  2000 100 300 5400 150 0 0 100 0 0\ncpu0 1 2 3 4\n")
    clock.now, clock.own = 110.0, 9.0
    assert use.foreign_cores() == pytest.approx(1.3)


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_STAT", tmp_path / "none")
    assert machine.ProcessorUse().foreign_cores() is None
    monkeypatch.delattr(machine.os, "getloadavg")
    assert machine.load_average() is None
