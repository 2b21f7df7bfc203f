"""Prompt lookup with penalties and token rules: the text of plain decoding with the same rules."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import NumericalError
from gpt2_wgpu.models.lookup_run import LookupRun
from gpt2_wgpu.nn import TokenRules
from gpt2_wgpu.samplers import Greedy, Random
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.models.test_prompt_lookup import LOOP, PROMPTS, lm, steps, texts

pytestmark = pytest.mark.usefixtures("no_leak")
__all__ = ["lm", "steps"]  # fixtures

STOPS = [*range(100, 180)]
RULES = {
    "penalties": {"repetition_penalty": 1.05, "presence_penalty": 0.1, "frequency_penalty": 0.01},
    "ngrams": {"no_repeat_ngram_size": 9, "begin_suppress_tokens": [*range(40)]},
    "lengths": {"min_length": 40, "min_new_tokens": 20},
    "words": {"bad_words_ids": [[4, 9], [8, 7, 6], [3]], "suppress_tokens": [*range(0, 257, 3)]},
    "biases": {"logit_bias": {9: 0.4, 8: 0.4}, "sequence_bias": [[[9, 8], 9.0], [[8, 7, 6], 9.0]]},
    "forced": {"forced_bos_token_id": 33, "forced_eos_token_id": [9, 12]},
}


@pytest.mark.chromium_cases("sampler")
@pytest.mark.parametrize("sampler", [Greedy, lambda **rules: Random(3, 0.05, **rules)])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_texts_are_those_of_plain_decoding(lm, steps, rules, sampler):
    prompts = [*PROMPTS, [7]]
    free = texts(lm, sampler(), prompts, stops=STOPS)
    expected = texts(lm, sampler(**rules), prompts, stops=STOPS)
    assert expected != free
    assert texts(lm, sampler(**rules), prompts, stops=STOPS, lookup=7) == expected
    assert 8 in steps  # drafts were verified


def test_rules_of_the_checkpoint_and_their_limit(lm, steps):
    """At the end of the context, too, where padding would be written after it."""
    lm.token_rules = TokenRules(no_repeat_ngram_size=5, forced_eos_token_id=(9,))
    expected = texts(lm, Greedy(), length=96)
    assert {row[-1] for row in expected[0]} == {9}
    assert texts(lm, Greedy(), length=96, lookup=7) == expected
    assert 8 in steps


def test_rows_that_leave_the_step(lm):
    rules = {"no_repeat_ngram_size": 6, "frequency_penalty": 0.02}
    prompts = [[1, 2, 3], [9], [7] * 12, [30, 31], LOOP * 3]
    rows = [texts(lm, Greedy(**rules), [prompt], 90, STOPS)[0][0] for prompt in prompts]
    assert texts(lm, Greedy(**rules), prompts, 90, STOPS, lookup=5)[0] == rows


def test_only_excluded_tokens_raise(lm):
    sampler = Greedy(suppress_tokens=[*range(3, 257)], no_repeat_ngram_size=1)
    with pytest.raises(NumericalError, match=r"row 1 is excluded .*: by suppress_tokens and no"):
        texts(lm, sampler, [[0], [0, 1, 2]], 4, lookup=3)


@pytest.mark.native("PyTorch")
@pytest.mark.usefixtures("device")
def test_a_lost_device_is_replaced(small, monkeypatch):
    lost = gw.Device()
    rules = {"repetition_penalty": 1.1, "no_repeat_ngram_size": 7}
    with gw.GPT2CausalLM.from_preset(small[1], None, "float16", lost) as lm:
        expected = texts(lm, Random(5, 0.1, **rules))
        submit, steps = LookupRun.submit, []

        async def losing(self, *args):
            steps.append(0)
            if len(steps) == 5:
                self.device.gpu.destroy()
                flush_promises(self.device.gpu)
            await submit(self, *args)

        monkeypatch.setattr(LookupRun, "submit", losing)
        assert texts(lm, Random(5, 0.1, **rules), lookup=7) == expected
        assert lm.device is not lost
    lm.device.close()
    lost.close()
