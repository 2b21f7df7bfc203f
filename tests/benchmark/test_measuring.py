"""Benchmark report: contents, consistency of figures, and no figures for wrong outputs."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path

import pytest

from gpt2_wgpu.bench import Plan, Preset, RandomModel, as_markdown, measure, measure_async
from gpt2_wgpu.bench.measuring import POSITION_STEPS
from gpt2_wgpu.errors import BenchmarkError, ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.weight_formats import OPTIONS

DOCS = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
TALES = Preset("fairytales")
SMALL = RandomModel.parse("2x64")


@pytest.fixture(scope="module")
def report(device):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAX_BYTES", "MAX_BYTES_ON_CPU"):
            patch.setattr(f"gpt2_wgpu.diagnostics.bandwidth.{name}", 1 << 20)
        patch.setattr("gpt2_wgpu.diagnostics.bandwidth.SHAPES", ((64, 64), (256, 16)))
        plan = Plan(TALES, 9, 12, batches=(1, 2), dtypes=("float16", "float32"), repeats=2)
        return measure(plan, device)


def keys_of(value):
    """Every key of nested JSON, but the names of kernels and packages."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if not isinstance(value, dict):
        return set()
    inner = {key: value[key] for key in value if key not in ("versions", "kernels")}
    return {*value}.union(*map(keys_of, inner.values()))


def test_it_is_json_and_the_documentation_names_every_key(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    text = DOCS.read_text()
    assert not {key for key in keys_of(report) if f"`{key}`" not in text}


def test_what_and_where(report, device):
    assert report["format"] == 1
    assert report["hardware"] == device.info.name
    assert report["software_adapter"] is device.info.is_software
    assert report["versions"].keys() == {"gpt2-wgpu", "wgpu", "python", "system"}
    assert report["work"] == {
        "model": "fairytales",
        "parameters": 7_498_240,
        "prompt_tokens": 9,
        "new_tokens": 12,
        "repeats": 2,
    }
    of = [(row["engine"], row["dtype"], row["batch"]) for row in report["rows"]]
    assert of == [("gpt2-wgpu", dtype, batch) for dtype in ("f16", "f32") for batch in (1, 2)]


def test_the_figures_hang_together(report):
    for row in report["rows"]:
        assert row["equal_outputs"] is True
        assert row["checked"]["tokens"] == 12 * row["batch"]
        assert len(row["prefill_seconds"]) == len(row["decode_tokens_per_second"]) == 2
        first = statistics.median(row["prefill_seconds"])
        assert row["prefill_tokens_per_second"] == pytest.approx(9 * row["batch"] / first)
        assert row["time_to_first_token_seconds"] == first
        low, high = sorted(row["decode_tokens_per_second"])
        assert low * 0.99 <= row["batch"] / row["seconds_per_step"] <= high * 1.01
        assert row["host_cpu_seconds_per_step"] > 0
        assert 0 < row["host_seconds_per_step"] < row["seconds_per_step"]
        nbytes = row["weight_bytes_per_step"] + row["cache_bytes_per_step"]
        assert row["bytes_per_second"] == pytest.approx(nbytes / row["seconds_per_step"])
        share = row["bytes_per_second"] / report["peak_read_bandwidth"]["bytes_per_second"]
        assert row["bandwidth_utilisation"] == pytest.approx(share)
        assert 0 < share <= 1.2


def test_what_a_step_runs(report, device):
    for row in report["rows"]:
        decode, prefill = row["kernels"]["decode"], row["kernels"]["prefill"]
        assert sum(found["dispatches"] for found in decode.values()) == pytest.approx(
            row["dispatches_per_step"]
        )
        assert 10 < row["dispatches_per_step"] < 200
        assert 0 < row["submits_per_step"] <= 2
        assert prefill
        for found in (*decode.values(), *prefill.values()):
            assert (found["seconds"] is not None) == ("timestamp-query" in device.features)


def test_two_bytes_a_weight_are_fewer_than_four(report):
    half, _, whole, _ = (row["weight_bytes_per_step"] for row in report["rows"])
    assert 0.5 <= half / whole < 0.51


def test_markdown(report):
    text = as_markdown(report)
    if report["software_adapter"]:
        assert "(SOFTWARE adapter: this is the CPU's speed)" in text.splitlines()[0]
    assert report["date"] in text
    assert "| fairytales | 7.5 M | " in text
    for test in ("pp9", "tg12"):
        assert text.count(f"| {test} |") == 4
    for table in text.split("\n\n")[1:]:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "position" not in text


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("cache", ["f32", "f16"])
def test_positions(device, monkeypatch, cache):
    monkeypatch.setattr("gpt2_wgpu.bench.measured_models.VOCABULARY", 1000)
    said = []
    plan = Plan(SMALL, 4, 6, repeats=1, positions=True, cache_dtype=OPTIONS[cache])
    report = asyncio.run(measure_async(plan, device, said.append))
    (row,) = report["rows"]
    places = [at["position"] for at in row["positions"]]
    assert len(places) == 4
    for place, begun in zip(places, (10, 256, 512, 1024 - POSITION_STEPS), strict=True):
        assert begun < place < begun + POSITION_STEPS
    assert all(at["seconds_per_step"] > 0 for at in row["positions"])
    assert row["cache_dtype"] == cache
    assert as_markdown(report).count(f"| f16 | {cache} | 1 | {places[3]} |") == 1
    assert any("position 256" in line for line in said)


def spoil(monkeypatch, generation, row, place):
    """Lets the ``generation``-th generation from now on return one wrong id."""
    advance, seen = Generation.advance, []

    async def spoilt(self):
        new = await advance(self)
        if self not in seen:
            seen.append(self)
            self.count = 0
        first, self.count = self.count, self.count + len(new[row])
        if self is seen[-1] and len(seen) == generation and first <= place < self.count:
            new[row][place - first] ^= 1
        return new

    monkeypatch.setattr(Generation, "advance", spoilt)


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize(
    ("generation", "error"),
    [
        (1, r"^new token 3 of row 1 is \d+, and should be \d+ by the uncached forward pass"),
        (2, "^new token 3 of row 1 is .* in run 1 and was"),
        (3, "^new token 3 of row 1 is .* in run 2 and was"),
        (5, "^new token 3 of row 1 is .* in the profiled run and was"),
    ],
)
def test_a_wrong_output_anywhere_gives_no_report(device, monkeypatch, generation, error):
    spoil(monkeypatch, generation, row=1, place=3)
    with pytest.raises(BenchmarkError, match=error):
        measure(Plan(SMALL, 5, 8, batches=(2,), repeats=2), device)


def test_one_token_all_over_is_said_to_prove_little(device, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.bench.measured_models.INITIALIZER_RANGE", 0.0)
    monkeypatch.setattr("gpt2_wgpu.bench.measured_models.VOCABULARY", 100)
    (row,) = measure(Plan(SMALL, 3, 8, repeats=1), device)["rows"]
    assert row["note"] == "only 1 of 8 tokens differ, so equality proves little"


@pytest.mark.usefixtures("no_leak")
def test_what_does_not_fit_the_context_is_refused(device):
    with pytest.raises(ContextLengthError, match=r"500 prompt tokens and 13 new .* of 512"):
        measure(Plan(TALES, 500, 13), device)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_tokens": 0},
        {"new_tokens": 1},
        {"repeats": 0},
        {"batches": ()},
        {"batches": (1, 0)},
        {"dtypes": ()},
        {"dtypes": ("f8",)},
        {"cache_dtype": "q8"},
        {"model": "fairytales"},
        {"batches": 3},
        {"dtypes": "float16"},
    ],
    ids=str,
)
def test_a_plan_without_sense_is_refused(wrong):
    with pytest.raises(InvalidArgumentError):
        Plan(**{"model": TALES, **wrong})
