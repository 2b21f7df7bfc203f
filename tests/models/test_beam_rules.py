"""Token rules and penalties with beam search, against transformers on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.nn import TokenRules
from gpt2_wgpu.samplers import BeamSampler
from tests.models.test_beam_search import MANY, PAD, PROMPTS, generated, reference

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

BEAMS = 3
CASES = [
    ({"repetition_penalty": 1.7, "no_repeat_ngram_size": 2}, [], PROMPTS, 20),
    ({"suppress_tokens": [*range(60, 99)], "begin_suppress_tokens": [*range(60)]}, [5], PROMPTS, 9),
    ({"min_length": 9, "no_repeat_ngram_size": 3}, MANY, PROMPTS, 20),
    ({"min_new_tokens": 4, "repetition_penalty": 0.8}, MANY, PROMPTS, 16),
    ({"forced_bos_token_id": 33, "forced_eos_token_id": 9}, [], [[3], [41]], 8),
    ({"sequence_bias": [[[3], -50.0], [[150], 3.0], [[150, 3], 60.0]]}, [7], PROMPTS, 12),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "stops", "prompts", "length"), CASES, ids=lambda x: str(x)[:30])
def test_ids_and_scores_equal_transformers(small, small_lm, rules, stops, prompts, length):
    plain, _ = reference(small[0], prompts, length, stops, BEAMS)
    expected, scores = reference(small[0], prompts, length, stops, BEAMS, **rules)
    assert plain.tolist() != expected.tolist()
    small_lm.compile(BeamSampler(BEAMS, return_all_beams=True, **rules))
    found, found_scores = generated(small_lm, prompts, length, stops)
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == PAD).all()
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5, atol=1e-5)


def test_bad_words_and_rules_of_the_checkpoint(small, small_lm, monkeypatch):
    """The rules of the model are obeyed, and those of the sampler win."""
    plain, _ = reference(small[0], PROMPTS, 16, [], BEAMS)
    bad = [plain[0, 6:8].tolist(), plain[3, 5:8].tolist(), [int(plain[6, 9])]]
    expected, _ = reference(small[0], PROMPTS, 16, [], BEAMS, bad_words_ids=bad)
    assert plain.tolist() != expected.tolist()
    small_lm.compile(BeamSampler(BEAMS))
    rules = TokenRules(bad_words_ids=tuple(map(tuple, bad)))
    monkeypatch.setattr(small_lm, "token_rules", rules)
    np.testing.assert_array_equal(generated(small_lm, PROMPTS, 16, [])[0], expected[::BEAMS])
    small_lm.compile(BeamSampler(BEAMS, bad_words_ids=()))
    np.testing.assert_array_equal(generated(small_lm, PROMPTS, 16, [])[0], plain[::BEAMS])


def test_rules_of_rows_that_move(small_lm):
    """Prompts that end early leave the step, and the rules stay with their rows."""
    small_lm.compile(BeamSampler(BEAMS, no_repeat_ngram_size=2, repetition_penalty=1.3))
    prompts = [[1, 2, 3], [9], [7] * 12, [30, 31]]
    rows, _ = generated(small_lm, prompts, 33, MANY)
    for row, prompt in zip(rows, prompts, strict=True):
        np.testing.assert_array_equal(generated(small_lm, [prompt], 33, MANY)[0][0], row)


def test_what_cannot_be_combined(small_lm):
    for name, value in (("min_p", 0.1), ("typical_p", 0.9)):
        with pytest.raises(InvalidArgumentError, match="beam search does not sample"):
            BeamSampler(2, **{name: value})
    everything = [[token] for token in range(4, 211)]
    small_lm.compile(BeamSampler(2, bad_words_ids=everything, no_repeat_ngram_size=1))
    with pytest.raises(NumericalError, match="excluded: by bad_words_ids and no_repeat_ngram"):
        generated(small_lm, [[11, 0, 1, 2, 3]], 9, [])
    with pytest.raises(InvalidArgumentError, match="num_beams 2 exceeds"):
        small_lm.generate(
            {"token_ids": [[1, 0]], "padding_mask": [[1, 0]]}, stop_token_ids=None,
            sampler=BeamSampler(2, suppress_tokens=[*range(210)]),
        )  # fmt: skip
