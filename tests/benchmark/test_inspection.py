"""Times of odds, attention, lens and details: none where two paths differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.bench import Plan, RandomModel, as_markdown, inspection, measure
from gpt2_wgpu.bench.runs import prompts_of
from gpt2_wgpu.errors import BenchmarkError, InvalidArgumentError
from gpt2_wgpu.webgpu import sync
from tests.benchmark.test_measuring import DOCS, keys_of

pytestmark = pytest.mark.usefixtures("no_leak")
TIMES = {
    "odds_after_edit_seconds",
    "attention_of_layer_seconds",
    "lens_seconds",
    "plain_seconds",
    "details_seconds",
}


def measured(lm, length=14):
    (ids,) = prompts_of(lm.backbone.config.vocab_size, 1, length)
    return sync(inspection.measure_inspection(lm, ids, 6, 2), "measure")


def test_the_figures(device, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.bench.measured_models.VOCABULARY", 1000)
    plan = Plan(RandomModel.parse("2x64"), 14, 6, batches=(2, 1), repeats=2, inspection=True)
    report = measure(plan, device)
    first, second = (row["inspection"] for row in report["rows"])
    assert first.keys() == {*TIMES, "details_ratio"} and second is None
    assert all(len(first[name]) == 2 and min(first[name]) > 0 for name in TIMES)
    ratio = min(first["details_seconds"]) / min(first["plain_seconds"])
    assert first["details_ratio"] == ratio
    assert as_markdown(report).endswith(f" {ratio:.2f} |\n")
    assert not {key for key in keys_of(first) if f"`{key}`" not in DOCS.read_text()}


@pytest.mark.parametrize("dtype", ["float32", "q8", "q4"])
def test_a_text_of_two_tokens_and_one_of_the_whole_context(device, dtype):
    """Numbers of few tokens and of many are compared, in each format."""
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype, device=device) as lm:
        for length in (2, 256):
            assert measured(lm, length).keys() == {*TIMES, "details_ratio"}


def test_a_lens_that_differs_from_the_odds(tales, monkeypatch):
    found = inspection.lens_of

    async def spoilt(*arguments):
        return [*(await found(*arguments))[:-2], 2.0, 0.0]

    monkeypatch.setattr(inspection, "lens_of", spoilt)
    with pytest.raises(BenchmarkError, match=r"position 10 a probability of 2\.0000, the odds 0"):
        measured(tales)


def test_attention_that_does_not_sum_to_one(tales, monkeypatch):
    found = inspection.attention_of

    async def spoilt(*arguments):
        weights: Any = await found(*arguments)
        weights[0, 1, 3, 0] += 0.01
        return weights

    monkeypatch.setattr(inspection, "attention_of", spoilt)
    with pytest.raises(BenchmarkError, match=r"^14 weights of attention sum to 1\.01"):
        measured(tales)


def test_details_that_change_the_tokens(tales, monkeypatch):
    found = inspection.streamed

    async def spoilt(lm, ids, count, top):
        *rest, last = await found(lm, ids, count, top)
        assert len(rest) == count - 1
        return [*rest, last if top is None else last ^ 1]

    monkeypatch.setattr(inspection, "streamed", spoilt)
    with pytest.raises(BenchmarkError, match=r"^tokens with details differ from those without"):
        measured(tales)


def test_a_text_shorter_than_the_lens_is_refused():
    plan = Plan(RandomModel.parse("2x64"), 12, inspection=True)
    with pytest.raises(InvalidArgumentError, match="needs 12 prompt tokens or more, not 11"):
        replace(plan, prompt_tokens=11)
