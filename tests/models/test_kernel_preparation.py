"""Kernels that are asked for before the weights are there: those of a text, and no memory."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import decoding
from gpt2_wgpu.models.kernel_preparation import prepare_kernels
from gpt2_wgpu.models.loading import open_preset, stored_weights
from gpt2_wgpu.webgpu.pipelines import PipelineCache
from gpt2_wgpu.webgpu.waiting import sync

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("reads a directory")]

PROMPT, TOKENS = "Once upon a", 3
TEXTS = {
    "greedy": lambda: samplers.GreedySampler(),
    "penalties": lambda: samplers.RandomSampler(seed=1, repetition_penalty=1.1),
}
FAIRYTALES = Path(__file__).parents[2] / "models" / "fairytales"


async def prepare(device, dtype, sampler):
    files = await open_preset(FAIRYTALES, "auto")
    config, _, open_weights = await stored_weights(files.config, files.weights, dtype, None)
    prompt = len(files.preprocessor.encode_prompts(PROMPT)[0])
    sizes = prompt, prompt + TOKENS
    await prepare_kernels(device, config, open_weights, sampler.next_options(), *sizes, dtype)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize(("name", "dtype"), [("greedy", "float32"), ("penalties", "q8")])
def test_a_text_takes_the_kernels_that_were_asked_for(
    device, capabilities, monkeypatch, kind, name, dtype
):
    async def nothing(*_):
        pass

    monkeypatch.setattr(decoding, "require_right_results", nothing)  # has kernels of its own
    monkeypatch.setattr(device, "pipelines", PipelineCache(device))
    capabilities(prefers_no_barriers=kind == "cpu", prefers_w8a8=kind == "cpu")
    before = gw.memory(device)
    sync(prepare(device, dtype, TEXTS[name]()), "")
    after = gw.memory(device)
    assert (after.num_tensors, after.num_buffers) == (before.num_tensors, before.num_buffers)
    asked_for = {*device.pipelines._kernels}
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype, device=device) as lm:
        lm.generate(PROMPT, max_new_tokens=TOKENS, sampler=TEXTS[name]())
    assert {*device.pipelines._kernels} == asked_for
