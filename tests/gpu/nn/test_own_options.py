"""Rows of a sampling state with options of their own, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from tests.gpu import references
from tests.gpu.nn.test_sampling import choose, expected_token, threads

pytestmark = [pytest.mark.usefixtures("threads", "no_leak"), pytest.mark.native("NumPy")]
__all__ = ["threads"]  # a fixture

OWN = [
    SamplingOptions(temperature=0),
    SamplingOptions(temperature=0.3, seed=4),
    SamplingOptions(top_k=5, seed=2**40 + 1),
    SamplingOptions(top_k=300, top_p=0.7, seed=3),
    SamplingOptions(min_p=0.1, seed=9),
    SamplingOptions(typical_p=0.2, temperature=2, seed=11),
]


@pytest.mark.parametrize("vocabulary", [3, 257, 1000])
def test_rows_with_options_of_their_own(device, vocabulary):
    logits = references.random(len(OWN), vocabulary, scale=3)
    history = History([1, 2], 2)
    with gw.tidy():
        state = SamplingState.create(
            device, [history] * len(OWN), [9] * len(OWN), SamplingOptions(), [], vocabulary,
            own_options=True,
        )  # fmt: skip
        for row, options in enumerate(OWN):
            state.write_row(row, history, 9, options)
        choose(logits, state)
        found = state.token.numpy()[:, 0]
    assert found[0] == logits[0].argmax()
    for row, options in list(enumerate(OWN))[1:]:
        token, goal, running = expected_token(logits[row], options, 0, 1)
        if np.abs(running - goal).min() > 1000:  # else rounding of masses may decide
            assert found[row] == token, options
