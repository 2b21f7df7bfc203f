"""Speculative decoding: the text of plain decoding, in fewer steps of the large model."""

from __future__ import annotations

from itertools import pairwise

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models.draft_run import DraftRun
from gpt2_wgpu.models.lookup_run import LookupRun
from gpt2_wgpu.models.verify_step import VerifyStep
from gpt2_wgpu.samplers import Greedy, Random, Speculative, TopK, TopP
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.memory import tiny
from tests.samplers.test_speculative_sampler import PROMPT, TARGET, rows_of, table

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = [[9, 8, 7, 6, 5, 4] * 4, [1, 2, 3], [50, 9, 8, 7, 51, 9, 8]]


def model(device, seed, dtype="float32", layers=2):
    backbone = gw.GPT2Backbone(
        257, layers, 2, 16, 32, max_sequence_length=96, device=device, seed=seed, dtype=dtype
    )
    return gw.GPT2CausalLM(backbone)


@pytest.fixture
def lm(device, request):
    with model(device, 4, getattr(request, "param", "float32")) as lm:
        yield lm


@pytest.fixture
def other(device):
    """A draft model with other weights."""
    with model(device, 5, layers=1) as draft:
        yield draft


def texts(lm, sampler, prompts=PROMPTS, length=60, stops=(), **options):
    """Ids and masks of one generation."""
    inputs = tiny.packed(prompts, length)
    out = lm.generate(inputs, stop_token_ids=list(stops), sampler=sampler, **options)
    return tiny.ids_of(out), [list(row) for row in out["padding_mask"]]


@pytest.fixture
def steps(monkeypatch):
    """Model, and tokens per row, of each step."""
    seen = []
    run = VerifyStep.run

    async def counted(self):
        seen.append((self._step._model, self.tokens))
        await run(self)

    monkeypatch.setattr(VerifyStep, "run", counted)
    return seen


SAMPLERS = [
    Greedy,
    lambda: Random(3, 0.05),
    lambda: TopK(4, 5, 0.3),
    lambda: TopP(0.7, seed=6, repetition_penalty=1.3, no_repeat_ngram_size=3),
]


@pytest.mark.chromium_cases("sampler")
@pytest.mark.parametrize("lm", ["float32", "float16"], indirect=True)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=["greedy", "random", "top_k", "rules"])
def test_texts_are_those_of_plain_decoding(lm, other, steps, sampler):
    expected = texts(lm, sampler())
    for draft in (lm, other):  # all is accepted, and next to nothing
        assert texts(lm, Speculative(7, sampler(), draft_model=draft)) == expected
        assert {(draft, 1), (lm, 8)} <= {*steps}
        steps.clear()
    stop = expected[0][0][30]
    expected = texts(lm, sampler(), stops=[stop])
    assert texts(lm, Speculative(3, sampler(), draft_model=lm), stops=[stop]) == expected


def test_accepted_drafts_save_steps_and_are_not_computed_again(lm, steps, monkeypatch):
    drafts = []
    original = DraftRun.drafts

    async def seen(self, *args):
        drafts.append(await original(self, *args))
        return drafts[-1]

    monkeypatch.setattr(DraftRun, "drafts", seen)
    texts(lm, Speculative(4, draft_model=lm), [[1, 2, 3]], 24)
    assert [tokens for _, tokens in steps if tokens > 1] == [5] * 4  # 21 tokens, the last alone
    assert [len(rows[0]) for rows in drafts] == [4] * 4
    # The newest token and three drafted ones; after a full acceptance the fourth one, too.
    assert len([tokens for _, tokens in steps if tokens == 1]) == 4 * 4 + 3 + 1


def test_a_rejected_draft_is_cut_from_both_caches(lm, other, steps):
    expected = texts(lm, Greedy(), length=96)
    assert texts(lm, Speculative(2, draft_model=other), length=96) == expected
    big = [tokens for which, tokens in steps if which is lm]
    assert {*big} == {1, 3}


def test_sampled_tokens_have_the_distribution_of_the_model(lm, other):
    """A chi-square test of the second new token, where the draft has other probabilities."""
    rows = 1024
    inputs = tiny.packed([[1, 2, 3]] * rows, 6)
    sampler = Speculative(2, TopK(4, temperature=0.5), draft_model=other)
    out = lm.generate(inputs, stop_token_ids=None, sampler=sampler, seed=[*range(rows)])
    counts = {}
    for row in tiny.ids_of(out):
        counts[tuple(row[3:5])] = counts.get(tuple(row[3:5]), 0) + 1
    expected = {}
    for first, p in probabilities(lm, [1, 2, 3]).items():
        for second, q in probabilities(lm, [1, 2, 3, first]).items():
            expected[first, second] = p * q * rows
    assert {*counts} <= {*expected}
    chi2 = sum((counts.get(pair, 0) - e) ** 2 / e for pair, e in expected.items())
    assert chi2 < 37.7  # 15 degrees of freedom, p = 0.001


def probabilities(lm, ids):
    """Of the four tokens that TopK(4, temperature=0.5) keeps after ``ids``."""
    with gw.tidy():
        last = lm(tiny.packed([ids], len(ids))).tolist()[0][-1]
    order = sorted(range(len(last)), key=lambda i: -last[i])[:4]
    weights = {i: 2.718281828459045 ** (2 * (last[i] - last[order[0]])) for i in order}
    return {i: w / sum(weights.values()) for i, w in weights.items()}


def test_stream_and_statistics(device):
    lm, draft = tiny.model(device), tiny.model(device)
    with lm, draft:
        expected = "".join(lm.stream("ab", **tiny.ENDLESS))
        lm.compile(Speculative(3, draft_model=draft))
        with lm.stream("ab", **tiny.ENDLESS) as stream:
            assert "".join(stream) == expected
        assert stream.stats.drafted_tokens == stream.stats.accepted_tokens > 12
        assert lm.session("ab").generate(**tiny.ENDLESS)  # without drafts


def test_seeds_are_those_of_the_base_sampler(lm, other):
    plain = texts(lm, TopK(4, temperature=0.5), seed=7)
    assert texts(lm, Speculative(3, TopK(4, temperature=0.5), draft_model=other), seed=7) == plain
    assert texts(lm, Speculative(3, TopK(4, temperature=0.5), 7, draft_model=other)) == plain
    alone = texts(lm, TopK(4, temperature=0.5), PROMPTS[:1], seed=[9])[0]
    rows = texts(lm, Speculative(3, TopK(4, temperature=0.5), draft_model=other), seed=[9, 1, 2])
    assert rows[0][:1] == alone


def test_a_draft_model_that_fails_ends_no_text(lm, other, monkeypatch):
    expected = texts(lm, Greedy())

    def break_(which):
        original = which.call_with_cache

        def broken(token_ids, cache, cache_update_index):
            logits, hidden, cache = original(token_ids, cache, cache_update_index)
            return logits * float("nan"), hidden, cache

        monkeypatch.setattr(which, "call_with_cache", broken)

    break_(other)
    assert texts(lm, Speculative(draft_model=other)) == expected
    break_(lm)
    with pytest.raises(NumericalError, match="row 0"):
        texts(lm, Speculative(draft_model=other))


def test_models_that_do_not_fit(lm, device):
    with pytest.raises(InvalidArgumentError, match="needs draft_model, a GPT2CausalLM, not None"):
        lm.compile(Speculative())
    short = gw.GPT2Backbone(257, 1, 2, 16, 32, max_sequence_length=48, device=device, seed=1)
    with (
        gw.GPT2CausalLM(short) as draft,
        pytest.raises(InvalidArgumentError, match="its context of 96"),
    ):
        texts(lm, Speculative(draft_model=draft))
    with pytest.raises(InvalidArgumentError, match="cannot be combined with logits processors"):
        lm.compile(Speculative(draft_model=lm), logits_processors=[lambda ids, logits: logits])
    with pytest.raises(InvalidArgumentError, match="prompt_lookup_num_tokens cannot"):
        lm.compile(Speculative(draft_model=lm), prompt_lookup_num_tokens=2)


@pytest.mark.native("PyTorch")
@pytest.mark.usefixtures("device")
def test_a_lost_device_is_replaced(small, monkeypatch):
    lost = gw.Device()
    load = gw.GPT2CausalLM.from_preset
    with load(small[1], None, "float16", lost) as lm, load(small[1], None, "q8", lost) as draft:
        expected = texts(lm, Random(5, 0.1))
        submit, steps = LookupRun.submit, []

        async def losing(self, *args):
            steps.append(0)
            if len(steps) == 5:
                self.device.gpu.destroy()
                flush_promises(self.device.gpu)
            await submit(self, *args)

        monkeypatch.setattr(LookupRun, "submit", losing)
        assert texts(lm, Speculative(4, Random(5, 0.1), draft_model=draft)) == expected
        assert lm.device is draft.device is not lost
        assert gw.memory(lost).num_tensors == 0
    lm.device.close()
    lost.close()


def test_drafts_are_those_of_the_draft_model_alone(lm, device, monkeypatch):
    """Its cache has the text that was accepted, and no rejected token."""
    original, seen = DraftRun.drafts, []

    async def drafts(self, live, rows, rooms):
        found = await original(self, live, rows, rooms)
        seen.extend(zip(rows, found, strict=True))
        return found

    monkeypatch.setattr(DraftRun, "drafts", drafts)
    base, prompts = Random(3, 0.8), [[1, 2, 3], [9] * 80]
    with model(device, 4, "q4") as draft:
        # The second row is full first: without room in the cache for its drafts, none has one.
        texts(lm, Speculative(4, base, draft_model=draft), prompts, 96, seed=[11, 12])
        seen = [(text, found) for text, found in seen if text[0] == 1]
        steps = {len(after) - len(text) for (text, _), (after, _) in pairwise(seen)}
        assert {3, 5} <= steps  # the model's choice follows two accepted tokens, or all four
        assert max(steps) > 5  # and drafts go on after steps without
        for text, found in seen:
            alone = texts(draft, base, [text], len(text) + len(found), seed=[11])[0][0]
            assert alone[len(text) :] == found


def test_draws_of_a_call_do_not_depend_on_the_drafts(device):
    """KerasHub's call, with functions in place of models."""

    def flat(prompt, cache, index):
        return [[0.1 * ((i * index) % 5) for i in range(26)]], None, cache

    def text(draft):
        base = Random(seed=3)
        return rows_of(Speculative(3, base)(flat, PROMPT, draft_next=draft))

    assert text(flat) == text(table(TARGET)) != PROMPT
