"""The dtype of keys and values: its default by adapter, and what float16 costs and saves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.bench.traffic import cache_bytes
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.samplers import BeamSampler
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from tests.memory.tiny import ids_of, packed

pytestmark = pytest.mark.usefixtures("no_leak")

HELD_OUT = Path(__file__).with_name("data") / "held_out.txt"
LIMITS = {"max-storage-buffer-binding-size": 1 << 30}


def small(device=None, cache_dtype=None):
    return gw.GPT2Backbone(
        101, 2, 4, 32, 64, max_sequence_length=64, device=device, cache_dtype=cache_dtype,
        initializer_range=0.2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("adapter_type", "expected"),
    [("CPU", False), ("IntegratedGPU", True), ("DiscreteGPU", True), ("unknown", True)],
)
def test_gpus_prefer_f16(adapter_type, expected):
    info = AdapterInfo("an adapter", "", "", "", adapter_type)
    assert Capabilities.of(info, LIMITS).prefers_f16_cache == expected


@pytest.mark.parametrize("wanted", [None, "float32", "float16"])
@pytest.mark.parametrize("of_gpus", [True, False], ids=["gpu", "cpu"])
def test_the_default_follows_from_the_adapter(device, capabilities, of_gpus, wanted):
    capabilities(prefers_f16_cache=of_gpus)
    expected = wanted or ("float16" if of_gpus else "float32")
    backbone = small(device, wanted)
    with gw.tidy():
        assert backbone.new_cache(1, 8).cache_dtype == backbone.cache_dtype == expected
    backbone.dispose()
    with gw.GPT2CausalLM.from_preset("fairytales", None, "float16", cache_dtype=wanted) as lm:
        assert lm.backbone.cache_dtype == expected


@pytest.mark.native("the text is a file")
@pytest.mark.parametrize("of_gpus", [True, False], ids=["gpu", "cpu"])
def test_f16_costs_less_than_a_thousandth_of_perplexity(capabilities, of_gpus):
    """docs/quantization.md has the figures for more text."""
    capabilities(prefers_no_barriers=not of_gpus)
    text = HELD_OUT.read_text()[:400]
    load = gw.GPT2CausalLM.from_preset
    with (
        load("fairytales", dtype="float16", cache_dtype="float32") as exact,
        load("fairytales", dtype="float16", cache_dtype="float16") as rounded,
    ):
        assert rounded.perplexity(text) == pytest.approx(exact.perplexity(text), rel=1e-3)
        found = rounded.divergence(text, exact)
        assert 0 < found.nats <= 1e-5
        assert found.agreement >= 0.99


def test_beams_of_a_row_are_those_of_the_row_alone(device):
    lm = gw.GPT2CausalLM(small(device, "float16"))
    lm.compile(BeamSampler(3))
    prompts = [[5, 9, 2], [71, 30, 8]]

    def generated(*rows):
        return ids_of(lm.generate(packed(list(rows), 16), stop_token_ids=None))

    assert generated(*prompts) == [*generated(prompts[0]), *generated(prompts[1])]
    lm.dispose()


def test_a_step_of_124m_at_position_1000_reads_a_fifth_more_than_at_10(device):
    config = gw.GPT2Config()
    weights = stored_bytes(config, "float16", device.capabilities.max_binding)
    weights -= 4 * config.n_positions * config.n_embd  # of which a step reads one row

    def growth(cache_dtype):
        def new_cache(batch, length):
            sizes = (batch, config.n_layer, length, config.n_head, config.head_dim)
            return gw.nn.KVCache(device, *sizes, cache_dtype)

        lm = SimpleNamespace(backbone=SimpleNamespace(new_cache=new_cache))
        return (weights + cache_bytes(lm, 1000)) / (weights + cache_bytes(lm, 10))

    assert growth("float16") <= 1.2 < growth("float32")
