"""Beam search as a sampler: arguments and choice of beams."""

from __future__ import annotations

import math

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.beams import Beam, Beams
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
        {"length_penalty": 50.5},
        {"length_penalty": -1000},
        {"early_stopping": "always"},
        {"early_stopping": 1},
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


def test_penalties_and_rules():
    sampler = samplers.BeamSampler(repetition_penalty=1.5, suppress_tokens=[3])
    assert check_usable(sampler) is sampler
    config = sampler.get_config()
    assert (config["repetition_penalty"], config["suppress_tokens"]) == (1.5, [3])
    with pytest.raises(InvalidArgumentError, match="not supported by a call"):
        sampler(lambda *_: None, [[1, 2]], index=1)

    class Own(samplers.BeamSampler):
        async def call_async(self, next, prompt, *others, **named):
            return prompt

    own = Own()
    own.repetition_penalty = 1.5
    with pytest.raises(InvalidArgumentError, match="replaces the sampling loop"):
        check_usable(own)


@pytest.mark.parametrize("length_penalty", [-50, 50])
def test_scores_with_an_extreme_length_penalty(length_penalty):
    length = 2**20
    sampler = samplers.BeamSampler(1, length_penalty=length_penalty, early_stopping="never")
    beams = sampler.beams(length, [9])
    beams.running = [Beam((1,) * (length - 2), -1e6)]
    assert beams.advance([[(1, -1.0), (9, -2.0)]]) == [0]
    assert beams.advance([[(1, -1.0)]]) == []
    assert math.isfinite(beams.finished[0].score)
    assert beams.finished[0].score < 0


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
