"""Finished prompts leave the steps of searches and of prompt lookup, and change nothing."""

from __future__ import annotations

import copy

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import live_rows
from gpt2_wgpu.models.search_step import SearchStep
from gpt2_wgpu.models.verify_step import VerifyStep
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LENGTH = 40
PROMPTS = [[1, 2, 3] * 4, [4], [9, 8, 7, 6, 5], [100], [50, 51] * 5]
BEAMS = samplers.BeamSampler(3, return_all_beams=True, early_stopping=True)


@pytest.fixture(scope="module", params=["float32", "float16"])
def lm(request, device):
    """A model whose cache has the dtype of its weights."""
    backbone = gw.GPT2Backbone(
        257, 2, 2, 64, 96, max_sequence_length=48, dtype=request.param, initializer_range=0.2,
        cache_dtype=request.param, seed=4,
    )  # fmt: skip
    yield gw.GPT2CausalLM(backbone)
    backbone.dispose()


@pytest.fixture
def rows(monkeypatch):
    """The number of rows of each step."""
    found = []
    run, submit = SearchStep.run, VerifyStep.submit

    async def noted_run(step, tokens, *args):
        found.append(len(tokens))
        return await run(step, tokens, *args)

    async def noted_submit(step, texts, starts):
        found.append(len(texts))
        await submit(step, texts, starts)

    monkeypatch.setattr(SearchStep, "run", noted_run)
    monkeypatch.setattr(VerifyStep, "submit", noted_submit)
    return found


def texts(lm, sampler, stops, prompts=PROMPTS, lookup=0):
    """Tokens of each row as far as the mask goes, and scores."""
    lm.compile(copy.deepcopy(sampler), prompt_lookup_num_tokens=lookup)
    out = lm.generate(tiny.packed(prompts, LENGTH), stop_token_ids=stops)
    pairs = zip(out["token_ids"], out["padding_mask"], strict=True)
    ids = [[int(token) for token, real in zip(*pair, strict=True) if real] for pair in pairs]
    return ids, [float(score) for score in out.get("scores", ())]


@pytest.mark.parametrize(
    ("sampler", "stops", "lookup", "per_prompt"),
    [
        (BEAMS, [*range(0, 257, 9)], 0, 3),
        (samplers.ContrastiveSampler(3, 0.6), [*range(0, 257, 9)], 0, 3),
        (samplers.Greedy(), [*range(0, 257, 24)], 3, 1),
        (samplers.Random(seed=5), [*range(0, 257, 24)], 3, 1),
    ],
    ids=["beam", "contrastive", "lookup", "sampled lookup"],
)
@pytest.mark.chromium_cases("lm")
def test_prompts_leave_and_change_nothing(
    lm, rows, monkeypatch, sampler, stops, lookup, per_prompt
):
    find = (lm, sampler, stops)
    found = texts(*find, lookup=lookup)
    steps = [*rows]
    assert steps[0] == len(PROMPTS) * per_prompt
    assert {count % per_prompt for count in steps} == {0}
    assert steps == sorted(steps, reverse=True)
    assert len({*steps}) > 2  # they leave at different steps
    monkeypatch.setattr(live_rows, "COMPACTED_EVERY", 1000)
    rows.clear()
    ids, scores = texts(*find, lookup=lookup)
    assert ids == found[0]
    assert scores == pytest.approx(found[1], rel=1e-5)  # kernels depend on the number of rows
    assert {*rows} == {len(PROMPTS) * per_prompt}
    assert sum(steps) < sum(rows)
    if sampler is BEAMS:
        alone = [texts(*find, [prompt])[0] for prompt in PROMPTS]
        assert [row for beams in alone for row in beams] == found[0]
    lm.compile()


@pytest.mark.parametrize(
    ("sampler", "every", "lookup"),
    [(BEAMS, 9, 0), (samplers.ContrastiveSampler(3, 0.6), 9, 0), (samplers.Greedy(), 24, 3)],
    ids=["beam", "contrastive", "lookup"],
)
@pytest.mark.chromium_cases("lm")
def test_prompts_stay_without_memory_for_moves(lm, rows, monkeypatch, sampler, every, lookup):
    find = (lm, sampler, [*range(0, 257, every)])
    expected = texts(*find, lookup=lookup)
    steps = [*rows]
    rows.clear()
    attempts = tiny.fail_moves(monkeypatch)
    ids, scores = texts(*find, lookup=lookup)
    assert len(attempts) > 1
    assert ids == expected[0]
    assert scores == pytest.approx(expected[1], rel=1e-5)
    assert min(rows) < max(rows)  # they leave later
    assert rows.count(max(rows)) > steps.count(max(steps))
    lm.compile()


def test_rows_stay_where_user_code_sees_them(lm, rows, monkeypatch):
    call = lm.call_with_cache
    expected, _ = texts(lm, BEAMS, [*range(0, 257, 9)])
    rows.clear()
    monkeypatch.setattr(lm, "call_with_cache", lambda *args: call(*args))
    assert texts(lm, BEAMS, [*range(0, 257, 9)])[0] == expected
    assert {*rows} == {len(PROMPTS) * 3}
    lm.compile()
