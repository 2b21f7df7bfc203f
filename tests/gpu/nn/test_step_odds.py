"""Odds that steps leave in the sampling state, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn import (
    RECENT,
    History,
    SamplingOptions,
    SamplingState,
    advance,
    odds_of,
    odds_width,
    penalize,
    record_odds,
)
from tests.gpu import references

pytestmark = [pytest.mark.native("NumPy"), pytest.mark.usefixtures("no_leak")]
COLUMNS = 37


def new_state(device, rows, top, limits=None):
    return SamplingState.create(
        device, [History([0] * (1 + row), 1) for row in range(rows)], limits or [99] * rows,
        SamplingOptions(), [], COLUMNS, odds_width=odds_width(top),
    )  # fmt: skip


def step(state, lines, tokens):
    """One step that chooses ``tokens`` from logits."""
    logits = gw.tensor(lines)
    penalize(logits, state)  # takes the maxima, which say that a token can be chosen
    advance(tokens, state)
    record_odds(logits, state)


def expected(line, token, top):
    """Loss, entropy, rank, log of the normaliser, the best logits, and their ids."""
    chances = references.log_softmax(line[None])[0]
    best = np.argsort(-line, kind="stable")[:top]
    numbers = [
        -chances[token], -(np.exp(chances) * chances).sum(), (line > line[token]).sum(),
        line[token] - chances[token], *line[best],
    ]  # fmt: skip
    return numbers, best.tolist()


@pytest.mark.parametrize("top", [0, 1, 5])
@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.usefixtures("variant", "guarded")
def test_odds_of_the_recent_tokens(device, rows, top):
    steps = RECENT + 3
    with gw.tidy():
        state, wanted = new_state(device, rows, top), {}
        for turn in range(steps):
            lines = references.random(rows, COLUMNS, scale=4) + np.float32(turn)
            tokens = [(7 * turn + row) % COLUMNS for row in range(rows)]
            step(state, lines, tokens)
            for row, token in enumerate(tokens):
                wanted[row, row + 1 + turn] = expected(lines[row], token, top)
        found = memoryview(state.odds.numpy().tobytes())
    for row in range(rows):
        for position in range(row + 1 + steps - RECENT, row + 1 + steps):
            numbers, ids = odds_of(found, row, position, top)
            np.testing.assert_allclose(list(numbers), wanted[row, position][0], atol=1e-4)
            assert list(ids) == wanted[row, position][1]


def test_a_finished_row_keeps_its_odds(device):
    first, second = (references.random(2, COLUMNS, scale=scale) for scale in (3, 5))
    with gw.tidy():
        state = new_state(device, 2, 2, limits=[2, 9])  # the first row is full after one token
        step(state, first, [4, 5])
        step(state, second, [6, 7])
        found = memoryview(state.odds.numpy().tobytes())
    for row, position, line, token in ((0, 1, first[0], 4), (1, 3, second[1], 7)):
        numbers, ids = expected(line, token, 2)
        np.testing.assert_allclose(list(odds_of(found, row, position, 2)[0]), numbers, atol=1e-4)
        assert list(odds_of(found, row, position, 2)[1]) == ids


def test_a_state_that_begins_anew_has_no_odds(device):
    """Otherwise a text of the same length as the one before would seem not to have advanced."""
    lines = references.random(2, COLUMNS, scale=3)
    with gw.tidy():
        state = new_state(device, 1, 0)
        for line in lines:
            step(state, line[None], [3])
            found = memoryview(state.odds.numpy().tobytes())
            np.testing.assert_allclose(
                list(odds_of(found, 0, 1, 0)[0]), expected(line, 3, 0)[0], atol=1e-4
            )
            state.write([History([0], 1)], [99], SamplingOptions(), [])


def test_wrong_states_and_shapes(device):
    with gw.tidy():
        state = new_state(device, 2, 1)
        with pytest.raises(ShapeError, match=r"record_odds: logits \(3, 37\), odds .* of 2 rows"):
            record_odds(gw.tensor(references.random(3, COLUMNS)), state)
        plain = SamplingState.create(device, [History([0], 1)], [9], SamplingOptions(), [], COLUMNS)
        with pytest.raises(ShapeError, match="odds None of 1 rows"):
            record_odds(gw.tensor(references.random(1, COLUMNS)), plain)
