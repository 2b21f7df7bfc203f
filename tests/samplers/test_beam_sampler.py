"""Beam search as a sampler: arguments, choice of beams, and KerasHub's call."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.beams import Beams
from gpt2_wgpu.samplers.sampler import check_usable


def test_config_round_trip_and_defaults():
    sampler = samplers.BeamSampler(3, True, length_penalty=0.5, early_stopping="never")
    again = samplers.get(samplers.serialize(sampler))
    assert again.get_config() == sampler.get_config()
    assert type(samplers.get("beam")) is samplers.BeamSampler
    assert samplers.BeamSampler().get_config() == {
        "num_beams": 5,
        "return_all_beams": False,
        "length_penalty": 1.0,
        "early_stopping": False,
        "temperature": 1.0,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_beams": 0},
        {"num_beams": 33},
        {"num_beams": 2.5},
        {"length_penalty": math.nan},
        {"early_stopping": "always"},
        {"temperature": 0},
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(InvalidArgumentError):
        samplers.BeamSampler(**wrong)
    sampler = samplers.BeamSampler()
    with pytest.raises(InvalidArgumentError):
        for name, value in wrong.items():
            setattr(sampler, name, value)
        sampler.checked()


def test_penalties_are_rejected():
    sampler = samplers.BeamSampler()
    sampler.repetition_penalty = 1.5
    with pytest.raises(InvalidArgumentError, match="penalties"):
        check_usable(sampler)


def test_finished_beams_leave_room_for_others_and_scores_are_per_token():
    beams = Beams(2, 3, {9}, 1.0, early_stopping=False)
    assert beams.advance([[(9, -1.0), (1, -2.0), (2, -3.0)]]) == [0, 0]
    assert [(beam.tokens, beam.score) for beam in beams.finished] == [((9,), -1.0)]
    assert beams.advance([[(3, -0.1), (9, -5.0)], [(4, -0.1), (9, -0.2)]]) == [0, 1]
    # The second beam's end, the third best continuation, is not among the best two.
    assert len(beams.finished) == 1
    beams.advance([[(5, -0.1)], [(6, -3.0)]])
    assert beams.done
    assert [beam.tokens for beam in beams.finished] == [(1, 3, 5), (9,)]
    assert beams.finished[0].score == pytest.approx(-2.2 / 3)


def forced(prompt, cache, index):
    """Logits that leave no choice but ``cache[:, index]``."""
    rows = np.asarray(cache.tolist())[:, index]
    return gw.tensor(np.eye(26, dtype=np.float32)[rows] * 1e9), None, cache


@pytest.mark.native("NumPy")
@pytest.mark.usefixtures("device")
def test_a_call_moves_the_cache_with_its_beams():
    text = [[18, 4, 16, 20, 4, 13], [13, 4, 23, 19, 13, 4]]
    with gw.tidy("test"):
        cache = gw.tensor(text, "int32")
        sampler = samplers.BeamSampler(2)
        found = sampler(forced, np.zeros((2, 6), np.int32), cache)
        assert found.tolist() == text
        mask = [[False] * 6, [place == 2 for place in range(6)]]
        found = sampler(forced, np.full((2, 6), 25), cache, 1, mask, [20, 19])
        assert found.tolist() == [[25, 4, 16, 20, 25, 25], [25, 4, 25, 19, 25, 25]]


@pytest.mark.native("NumPy")
@pytest.mark.usefixtures("device")
def test_a_call_finds_the_best_text_where_greedy_search_does_not():
    # A token's probabilities depend on the token before it: greedy takes 0, then has 0.4 at most.
    table = np.log([[0.4, 0.3, 0.3], [0.0005, 0.999, 0.0005], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1]])

    def following(prompt, cache, index):
        return gw.tensor(table[np.asarray(prompt)[:, index - 1]], "float32"), None, cache

    prompt = np.array([[3, 0, 0, 0]])
    with gw.tidy("test"):
        sampler = samplers.BeamSampler(2, return_all_beams=True, length_penalty=0)
        tokens, scores = sampler(following, prompt, index=1)
        assert tokens.shape == (1, 2, 4)
        assert tokens.tolist()[0][0] == [3, 1, 1, 1]
        assert scores.tolist()[0][0] == pytest.approx(math.log(0.4 * 0.999**2), abs=1e-5)
        assert samplers.Greedy()(following, prompt, index=1).tolist() == [[3, 0, 0, 0]]
        certain = samplers.BeamSampler(5, return_all_beams=True)  # four beams of probability 0
        tokens, scores = certain(forced, np.zeros((1, 2), np.int32), gw.tensor([[7, 8]], "int32"))
        assert tokens.shape == (1, 5, 2)
        assert tokens.tolist()[0][0] == [7, 8]
        assert scores.shape == (1, 5)
