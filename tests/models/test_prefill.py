"""Prefill: submits are limited in time, and their size does not change results."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models import pace
from gpt2_wgpu.models.prefill import Prefill, cache_bytes, chunk_rows, fitting_rows
from gpt2_wgpu.webgpu import Readback
from gpt2_wgpu.webgpu.queue import CommandQueue
from gpt2_wgpu.webgpu.waiting import sync

LENGTH = 97
IDS = [[(7 * t + t * t) % 99 for t in range(LENGTH + 1)]]


@pytest.fixture(scope="module", params=["float32", "q8"])
def backbone(request, device):
    backbone = gw.GPT2Backbone(
        99, 5, 2, 64, 256, max_sequence_length=128, dtype=request.param, initializer_range=0.2
    )
    yield backbone
    backbone.dispose()


class FakeGPU:
    """Does ``rate`` operations a second, by a clock that runs only while the host waits for it.

    Operations are counted from the shapes of what is dispatched, not as the product counts them.
    """

    def __init__(self, monkeypatch, rate):
        self.rate, self.now, self.outstanding = rate, 0.0, 0.0
        self.submits, self.most_outstanding, self.waits = [], 0.0, 0
        submit, finish = CommandQueue._encode_and_submit, Readback.finish

        def counted(queue, batches, *arguments):
            work = sum(operations(command[3]) for batch in batches for command in batch.commands)
            self.submits.append(work)
            self.outstanding += work
            self.most_outstanding = max(self.outstanding, self.most_outstanding)
            submit(queue, batches, *arguments)

        async def waited(readback):
            self.now += self.outstanding / self.rate
            self.outstanding, self.waits = 0.0, self.waits + 1
            return await finish(readback)

        monkeypatch.setattr(CommandQueue, "_encode_and_submit", counted)
        monkeypatch.setattr(Readback, "finish", waited)
        monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(pace, "_rates", pace.WeakKeyDictionary())
        monkeypatch.setattr(pace, "UNMEASURED", 1e6)


def operations(note):
    """Of a dispatch: two for each element of a linear layer's weights and row."""
    if not note.kernel.startswith("linear"):
        return 0
    columns, _ = note.shapes["weights"]
    words = 4 if note.kernel.startswith("linear_w8a8_gemm") else 1  # elements of x in a word
    return 2 * columns * words * math.prod(note.shapes["x"])


def prefilled(backbone):
    """Keys and values of the prompt, as nested lists."""
    with gw.tidy():
        cache = backbone.new_cache(1, LENGTH)
        lm, prefill = gw.GPT2CausalLM(backbone), Prefill(backbone, cache)
        sync(lm.build_cache_async([IDS[0][:-1]], prefill=prefill), "")
        prefill.close()
        return cache.tolist()


WORK = 5 * 24 * 64 * 64 * LENGTH  # of the prompt, without attention


@pytest.mark.parametrize("rate", [2.2e7, 4e7, 2e8])
def test_no_submit_takes_longer_than_a_fifth_of_a_second_on_a_slow_device(
    backbone, monkeypatch, rate
):
    gpu = FakeGPU(monkeypatch, rate)
    prefilled(backbone)
    assert sum(gpu.submits) == WORK
    assert max(gpu.submits) <= 0.2 * rate
    assert gpu.most_outstanding <= 0.2 * rate  # each is waited for before the next is handed over
    assert gpu.waits >= WORK / rate / 0.2 - 1


def test_a_fast_device_is_waited_for_once(backbone, monkeypatch):
    gpu = FakeGPU(monkeypatch, 1e12)
    prefilled(backbone)
    assert gpu.waits == 1 + 1  # the last is the test's
    chunks = -(-LENGTH // chunk_rows(backbone, cache_bytes(backbone.new_cache(1, LENGTH))))
    # The first blocks of a chunk are submitted before the others are recorded.
    assert sum(work > 0 for work in gpu.submits) <= 2 * chunks + 1
    gpu.waits = 0
    prefilled(backbone)
    assert gpu.waits == 1


def test_a_prompt_of_little_work_is_not_waited_for(backbone, monkeypatch):
    gpu = FakeGPU(monkeypatch, 1e7)
    monkeypatch.setattr(pace, "UNMEASURED", 2.0 * WORK)
    prefilled(backbone)
    assert gpu.waits == 1


def test_where_submits_end_changes_no_bit(backbone, monkeypatch):
    expected = prefilled(backbone)
    for rate in (1e6, 3e7):
        with monkeypatch.context() as patch:
            gpu = FakeGPU(patch, rate)
            assert prefilled(backbone) == expected
            assert gpu.waits > 2


def test_wide_models_go_in_smaller_chunks_through_cpu_adapters(backbone):
    """A submit is half a block of a chunk at least, some 0.8e9 operations."""
    mlp = {384: 128, 768: 80, 1024: 32, 1280: 16, 1600: 16}
    on_a_cpu = replace(backbone.device.info, adapter_type="CPU")
    on_a_gpu = replace(backbone.device.info, adapter_type="DiscreteGPU")
    for width, rows in mlp.items():
        for info, expected in ((on_a_cpu, rows), (on_a_gpu, 128)):
            there = SimpleNamespace(device=SimpleNamespace(info=info))
            assert fitting_rows(there, 128, 16 * width * width) == expected


def test_evaluation_is_bounded_too(backbone, monkeypatch):
    lm = gw.GPT2CausalLM(backbone)
    expected = lm.perplexity(IDS)
    gpu = FakeGPU(monkeypatch, 4e7)
    assert lm.perplexity(IDS) == expected
    assert max(gpu.submits) <= 0.2 * gpu.rate
