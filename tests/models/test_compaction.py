"""Finished rows leave the step, and the others are those of the prompt alone."""

from __future__ import annotations

import copy

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import decode_run, live_rows
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LENGTH = 44
PROMPTS = [[1, 2, 3], [4], [9, 8, 7, 6, 5], [100], [50, 51], [33]]
STOPS = list(range(0, 257, 32))
SAMPLERS = [
    samplers.TopK(20, seed=3),
    samplers.TopP(0.9, seed=5, repetition_penalty=1.3, frequency_penalty=0.5),
]


@pytest.fixture(scope="module", params=WEIGHT_FORMATS)
def lm(request, device):
    backbone = gw.GPT2Backbone(
        257, 2, 2, 64, 96, max_sequence_length=48, dtype=request.param, initializer_range=0.2,
        cache_dtype="float16" if request.param == "float16" else "float32",
    )  # fmt: skip
    yield gw.GPT2CausalLM(backbone)
    backbone.dispose()


@pytest.fixture
def submits(monkeypatch):
    """(first step, steps, rows) of each submit."""
    found = []
    submit = decode_run.DecodeRun.submit

    async def noted(run, steps, *args):
        found.append((run.steps, steps, run._live.rows))
        await submit(run, steps, *args)

    monkeypatch.setattr(decode_run.DecodeRun, "submit", noted)
    return found


def rows_of(lm, sampler, prompts=PROMPTS, stops=STOPS):
    """The tokens of each row, as far as the mask goes."""
    lm.sampler = samplers.get(copy.deepcopy(sampler))
    out = lm.generate(tiny.packed(prompts, LENGTH), stop_token_ids=stops)
    pairs = zip(out["token_ids"], out["padding_mask"], strict=True)
    return [[int(token) for token, real in zip(*pair, strict=True) if real] for pair in pairs]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["top_k", "top_p and penalties"])
@pytest.mark.chromium_cases()  # tests/browser/test_kernels.py has every format
def test_rows_leave_and_change_nothing(lm, submits, monkeypatch, sampler):
    lm.compile()
    found = rows_of(lm, sampler)
    steps = [len(row) - len(prompt) for row, prompt in zip(found, PROMPTS, strict=True)]
    longest, interval = max(steps), live_rows.COMPACTED_EVERY
    assert len({*steps}) > 2 and longest > 3 * interval
    for first, _, rows in submits:
        start = first - first % interval  # the rows are those of the interval
        for row, count in enumerate(steps):
            assert (row in rows) == (count > start - interval) or first > longest
    # None of it depends on how the steps are cut, and a second text uses the same recordings.
    ((_, parts),) = lm.kept_runs._runs
    kept = dict(parts.steps)
    assert len(kept) > 2
    assert rows_of(lm, sampler) == found
    assert parts.steps == kept
    monkeypatch.setattr(live_rows, "COMPACTED_EVERY", 1000)
    monkeypatch.setattr(decode_run, "COMPACTED_EVERY", 1000)
    submits.clear()
    assert rows_of(lm, sampler) == found
    assert {len(rows) for _, _, rows in submits} == {len(PROMPTS)}
    lm.compile()
    gw.trim()


def _first_with_fewer(submits):
    return min(first for first, _, rows in submits if len(rows) < len(PROMPTS))


@pytest.mark.chromium_cases()
def test_rows_stay_without_memory_for_moves(lm, submits, monkeypatch):
    lm.compile()
    expected = rows_of(lm, SAMPLERS[0])
    begin = _first_with_fewer(submits)
    submits.clear()
    attempts = tiny.fail_moves(monkeypatch)
    assert rows_of(lm, SAMPLERS[0]) == expected
    assert len(attempts) > 2
    assert _first_with_fewer(submits) == begin + 2 * live_rows.COMPACTED_EVERY
    lm.compile()
    gw.trim()


@pytest.mark.chromium_cases()
def test_rows_stay_without_memory_for_a_recording(lm, submits, monkeypatch):
    lm.compile()
    expected = rows_of(lm, SAMPLERS[0])
    lm.compile()  # without the recordings
    submits.clear()
    recorded, attempts = DecodeStep.recorded, []

    async def record(step):
        attempts.append(step)
        if len(attempts) > 1:
            raise OutOfGPUMemoryError("no memory for a recording")
        return await recorded(step)

    monkeypatch.setattr(DecodeStep, "recorded", record)
    assert rows_of(lm, SAMPLERS[0]) == expected
    assert len(attempts) > 2
    assert {len(rows) for _, _, rows in submits} == {len(PROMPTS)}
    lm.compile()
    gw.trim()


def test_greedy_rows_are_those_alone(lm, submits):
    lm.compile("greedy")
    first, *others = rows_of(lm, "greedy", stops=None)
    new = first[len(PROMPTS[0]) :]
    stops = [next(token for token in new if not all(token in row for row in others))]
    lm.compile("greedy")
    submits.clear()
    found = rows_of(lm, samplers.Greedy(), stops=stops)
    assert len(found[0]) < max(map(len, found)) == LENGTH  # a row that goes on without the first
    assert min(len(rows) for _, _, rows in submits) < len(PROMPTS)
    for row, prompt in zip(found, PROMPTS, strict=True):
        assert rows_of(lm, samplers.Greedy(), [prompt], stops) == [row]
    lm.compile()
    gw.trim()


def test_a_step_has_the_dispatches_of_its_rows(lm):
    """The kernels of the step, over fewer rows."""
    lm.compile()
    rows_of(lm, SAMPLERS[0])
    ((_, parts),) = lm.kept_runs._runs
    assert parts.resume()
    whole = [work.label.kernel for work in parts.step.recorded]
    for rows, step in parts.steps.items():
        kernels = [work.label.kernel for work in step.recorded]
        assert len(kernels) <= len(whole)
        (sample,) = [work for work in step.recorded if work.label.kernel == "sample"]
        assert sample.grid == (rows, 1, 1)
        shapes = [work.label.shapes["logits"] for work in step.recorded if work is sample]
        assert shapes == [(rows, 257)]
    parts.suspend()
    lm.compile()
    gw.trim()


def test_rows_stay_where_user_code_sees_them(lm, submits):
    """A logits processor may keep notes of each row by its index."""
    seen = []

    def note(token_ids, logits):
        seen.append((len(token_ids), logits.shape[0]))
        return logits

    lm.compile(SAMPLERS[0], logits_processors=[note])
    rows_of(lm, SAMPLERS[0])
    assert {*seen} == {(6, 6)}
    lm.compile()
    gw.trim()


def test_recorded_steps_of_fewer_rows_equal_eager_ones(lm):
    lm.compile()
    expected = rows_of(lm, SAMPLERS[0])
    lm.make_generate_function(check=True)
    assert rows_of(lm, SAMPLERS[0]) == expected
    lm.compile()
    gw.trim()


@pytest.mark.native("PyTorch")
def test_ragged_rows_equal_transformers(small, small_lm, submits):
    import torch

    reference, _ = small
    prompts = [[5, 9, 11, 60], [7], [100, 3, 4], [8, 8], [150, 20, 31]]
    width = max(map(len, prompts))
    left = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])

    def generate(stops):
        with torch.no_grad():
            return reference.generate(
                left, attention_mask=mask, max_new_tokens=30, do_sample=False, pad_token_id=0,
                eos_token_id=stops,
            )[:, width:].tolist()  # fmt: skip

    stops = [row[3 + 5 * index] for index, row in enumerate(generate(None)[:3])]
    expected = generate(stops)
    small_lm.compile("greedy")
    found = small_lm.generate(
        tiny.packed([[*prompt] for prompt in prompts], 34), stop_token_ids=stops, strip_prompt=True
    )
    assert min(len(rows) for _, _, rows in submits) < len(prompts)
    for row, ids, real in zip(expected, found["token_ids"], found["padding_mask"], strict=True):
        count = sum(map(int, real))
        assert [*map(int, ids)][: min(count, 30)] == row[: min(count, 30)]
        assert count >= 30 or row[count - 1] in stops
