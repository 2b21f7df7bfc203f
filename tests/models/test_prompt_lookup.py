"""Prompt lookup: the same text as plain decoding, in fewer steps."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models.lookup_run import LookupRun
from gpt2_wgpu.models.prompt_lookup import PromptLookup
from gpt2_wgpu.models.verify_step import VerifyStep
from gpt2_wgpu.samplers import Greedy, Random, TopK, TopP
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LOOP = [9, 8, 7, 6, 5, 4]
PROMPTS = [LOOP * 4, [1, 2, 3], [50, *LOOP, 51, *LOOP]]


@pytest.fixture(params=["float32", "float16"])
def lm(device, request):
    """A tiny model with tied weights, whose texts repeat themselves."""
    backbone = gw.GPT2Backbone(
        257, 2, 2, 16, 32, max_sequence_length=96, device=device, seed=4, dtype=request.param
    )
    lm = gw.GPT2CausalLM(backbone)
    yield lm
    lm.dispose()


def texts(lm, sampler, prompts=PROMPTS, length=60, stops=(), lookup=0):
    """Ids and masks of one generation."""
    lm.compile(sampler, prompt_lookup_num_tokens=lookup)
    out = lm.generate(tiny.packed(prompts, length), stop_token_ids=list(stops))
    return tiny.ids_of(out), [list(row) for row in out["padding_mask"]]


@pytest.fixture
def steps(monkeypatch):
    """Counts of the tokens per row of each step."""
    counts = []
    submit = VerifyStep.submit

    async def counted(self, rows, starts):
        counts.append(self.tokens)
        await submit(self, rows, starts)

    monkeypatch.setattr(VerifyStep, "submit", counted)
    return counts


def test_drafts():
    lookup = PromptLookup()
    assert lookup.draft([1, 2], 7) == []
    assert lookup.draft([1, 2, 3, 1, 2], 2) == [3, 1]
    assert lookup.draft([1, 2, 3, 1, 2, 9, 1, 2], 3) == [9, 1, 2]  # the last occurrence
    assert lookup.draft([1, 2, 3, 1, 2, 9, 1, 2, 3, 1], 2) == [2, 9]
    assert lookup.draft([1, 2, 3, 1, 2, 9, 1, 2, 3, 1, 5], 7) == []
    assert PromptLookup().draft([4, 5, 4, 5, 4], 7) == [5, 4, 5, 4, 5, 4, 5]  # a loop goes on
    assert PromptLookup().draft([4, 5, 4, 5, 4], 0) == []


@pytest.mark.chromium_cases("sampler")
@pytest.mark.parametrize("lookup", [1, 7])
@pytest.mark.parametrize(
    "sampler",
    [Greedy, lambda: Random(3, 0.05), lambda: TopK(4, 5, 0.3), lambda: TopP(0.7, seed=6)],
    ids=["greedy", "random", "top_k", "top_p"],
)
def test_texts_are_those_of_plain_decoding(lm, steps, sampler, lookup):
    expected = texts(lm, sampler())
    assert texts(lm, sampler(), lookup=lookup) == expected
    assert {*steps} >= {lookup + 1}  # drafts were verified
    stop = expected[0][0][30]
    expected = texts(lm, sampler(), stops=[stop])
    assert texts(lm, sampler(), stops=[stop], lookup=lookup) == expected


def test_repeated_text_takes_fewer_steps(lm, steps):
    texts(lm, Greedy(), lookup=7)
    assert len(steps) <= 30  # 57 new tokens in the longest row


def test_up_to_the_end_of_the_context(lm, steps):
    expected = texts(lm, Greedy(), length=96)
    assert texts(lm, Greedy(), length=96, lookup=7) == expected
    assert {*steps} == {1, 8}


def test_a_full_prompt_and_a_single_token(lm):
    for length in (24, 25):
        prompts = [LOOP * 4, [3]]
        assert texts(lm, Greedy(), prompts, length, lookup=7) == texts(
            lm, Greedy(), prompts, length
        )


def test_a_replaced_call_with_cache_is_called(lm, monkeypatch):
    expected = texts(lm, Greedy())
    original, shapes = lm.call_with_cache, []

    def replaced(token_ids, cache, cache_update_index):
        found = original(token_ids, cache, cache_update_index)
        shapes.append(found[0].shape)
        found[0].tolist()  # reading: the step runs eagerly
        return found

    monkeypatch.setattr(lm, "call_with_cache", replaced)
    assert texts(lm, Greedy(), lookup=3) == expected
    assert {(3, 4, 257), (3, 1, 257)} <= {*shapes}


def test_it_applies_to_the_sampler_of_a_call(lm, steps):
    def of_a_call(seed):
        sampler = TopK(k=2, temperature=0.5, seed=seed)
        out = lm.generate(tiny.packed(PROMPTS, 60), stop_token_ids=None, sampler=sampler)
        return tiny.ids_of(out)

    lm.compile("greedy")
    expected = of_a_call(5)
    assert not steps
    lm.compile("greedy", prompt_lookup_num_tokens=7)
    assert of_a_call(5) == expected
    assert 8 in steps


def test_what_it_cannot_be_combined_with(lm):
    processors = [lambda token_ids, logits: logits]
    for sampler, others in (
        ("greedy", {"logits_processors": processors}),
        ("beam", {}),
    ):
        with pytest.raises(InvalidArgumentError, match="prompt_lookup_num_tokens cannot"):
            lm.compile(sampler, prompt_lookup_num_tokens=2, **others)
    for wrong in (-1, 8, 1.5):
        with pytest.raises(InvalidArgumentError, match="prompt_lookup_num_tokens must"):
            lm.compile("greedy", prompt_lookup_num_tokens=wrong)
    lm.compile(Greedy(), prompt_lookup_num_tokens=2)
    for sampler in ("beam", "contrastive"):
        with pytest.raises(InvalidArgumentError, match="prompt_lookup_num_tokens cannot"):
            lm.generate(tiny.packed(PROMPTS, 30), stop_token_ids=None, sampler=sampler)


def test_no_step_after_the_first_creates_a_buffer(lm, device, monkeypatch):
    allocate, submit, allocated, created = device.memory.allocate, VerifyStep.submit, [0], []

    def counting(*args):
        allocated[0] += 1
        return allocate(*args)

    async def counted(self, *args):
        before = allocated[0]
        await submit(self, *args)
        created.append(allocated[0] - before)

    monkeypatch.setattr(device.memory, "allocate", counting)
    monkeypatch.setattr(VerifyStep, "submit", counted)
    texts(lm, Greedy(), lookup=7)
    assert created == [0] * len(created)
    assert allocated[0] > 0


def test_logits_that_are_not_finite_raise(lm, monkeypatch):
    original = lm.call_with_cache

    def broken(token_ids, cache, cache_update_index):
        logits, hidden, cache = original(token_ids, cache, cache_update_index)
        return logits * float("nan"), hidden, cache

    monkeypatch.setattr(lm, "call_with_cache", broken)
    with pytest.raises(NumericalError, match="row 0"):
        texts(lm, Greedy(), lookup=2)


@pytest.mark.native("PyTorch")
def test_a_stream_reports_drafts_and_text_is_equal(tales):
    prompt = "The wolf said: I am a wolf. The wolf said: I am a wolf. The wolf said:"
    tales.compile("greedy")
    expected = "".join(tales.stream(prompt, max_new_tokens=60, stop_token_ids=None))
    tales.compile("greedy", prompt_lookup_num_tokens=7)
    with tales.stream(prompt, max_new_tokens=60, stop_token_ids=None) as stream:
        assert "".join(stream) == expected
    assert (
        tales.generate(prompt, max_new_tokens=60, strip_prompt=True, stop_token_ids=None)
        == expected
    )
    stats = stream.stats
    assert stats.new_tokens == 60
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens


@pytest.mark.native("PyTorch")
@pytest.mark.usefixtures("device")
def test_a_lost_device_is_replaced(small, monkeypatch):
    lost = gw.Device()
    with gw.GPT2CausalLM.from_preset(small[1], None, "float16", lost) as lm:
        expected = texts(lm, Random(5, 0.1))
        submit, steps = LookupRun.submit, []

        async def losing(self, *args):
            steps.append(0)
            if len(steps) == 5:
                self.device.gpu.destroy()
                flush_promises(self.device.gpu)
            await submit(self, *args)

        monkeypatch.setattr(LookupRun, "submit", losing)
        assert texts(lm, Random(5, 0.1), lookup=7) == expected
        assert lm.device is not lost
        assert gw.memory(lost).num_tensors == 0
    lm.device.close()
    lost.close()


def test_logits_that_exclude_every_token_raise(lm, monkeypatch):
    original = lm.call_with_cache

    def excluding(token_ids, cache, cache_update_index):
        logits, hidden, cache = original(token_ids, cache, cache_update_index)
        return logits * 0.0 - float("inf"), hidden, cache

    monkeypatch.setattr(lm, "call_with_cache", excluding)
    with pytest.raises(NumericalError, match="row 0"):
        texts(lm, Greedy(), lookup=2)
