"""The kernels of steps whose logits or tokens come from elsewhere, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn import (
    ALL_EXCLUDED,
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    History,
    Penalties,
    SamplingOptions,
    SamplingState,
    advance,
    penalize,
)
from gpt2_wgpu.nn.sampling import CHUNK
from tests.gpu import references
from tests.gpu.nn.test_sampling import largest_of

pytestmark = [
    pytest.mark.usefixtures("guarded", "no_leak"),
    pytest.mark.native("NumPy"),
]

NONE = Penalties()
LOWEST = np.float32(-3.4e38)


def state_of(device, rows, candidates, penalties=NONE, stops=(), excluded=(), limit=100):
    """Rows with prompts of 1 to ``rows`` ids and one new token each."""
    histories = [
        History([*range(1, 2 + row), row + 7], 1 + row) for row in range(rows)
    ]  # the ids are below 2 * rows + 7
    options = SamplingOptions(temperature=0, penalties=penalties)
    return SamplingState.create(
        device, histories, [limit] * rows, options, stops, candidates, excluded=excluded
    )


@pytest.mark.parametrize("width", [39, 255, 256, 257, 1000])
@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("penalties", [NONE, Penalties(1.5, 0.5, 0.25)], ids=["none", "three"])
def test_logits_are_penalised_and_their_maxima_noted(device, rows, width, penalties):
    candidates = width if width < 256 else width - 1
    logits = references.random(rows, width)
    logits[:, 5] = -np.inf  # as a processor excludes a token
    with gw.tidy():
        state = state_of(device, rows, candidates, penalties, excluded=[2])
        found = penalize(gw.tensor(logits), state).numpy()
        maxima = state.maxima_and_counts.numpy()[:, : -(-candidates // CHUNK)]
    expected = logits.copy()
    for row in range(rows):
        for token in {*range(1, 2 + row), row + 7}:
            value = expected[row, token]
            value = value * penalties.repetition if value < 0 else value / penalties.repetition
            new = token == row + 7
            expected[row, token] = value - (penalties.presence + penalties.frequency) * new
    expected[:, [2, 5]] = LOWEST
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(maxima, largest_of(found, candidates))


def test_a_logit_that_is_not_a_number_stays_noted(device):
    logits = references.random(1, 300)
    logits[0, 270] = np.nan
    with gw.tidy():
        state = state_of(device, 1, 300)
        penalize(gw.tensor(logits), state)
        assert state.maxima_and_counts.numpy()[0, 1] == 0xFFFFFFFF


@pytest.mark.parametrize("rows", [1, 3, 64, 65, 130])
def test_rows_advance_by_given_tokens(device, rows):
    candidates, steps = 300, 3
    chosen = np.random.default_rng(rows).integers(0, candidates, (steps, rows))
    stop = int(chosen[1, 0])
    with gw.tidy():
        penalties = Penalties(frequency=0.5)
        state = state_of(device, rows, candidates, penalties, [stop], limit=rows + 4)
        before = {name: getattr(state, name).numpy().copy() for name in NAMES}
        for tokens in chosen:
            penalize(gw.tensor(references.random(rows, candidates)), state)
            advance(tokens.tolist(), state)
        after = {name: getattr(state, name).numpy() for name in NAMES}
    expected = before
    counts = -(-candidates // CHUNK)
    for tokens in chosen:
        for row, token in enumerate(tokens):
            if expected["finished"][row] != LIVE:
                continue
            expected["position"][row] += 1
            expected["token"][row] = token
            expected["recent"][row, expected["position"][row] % RECENT] = token
            expected["maxima_and_counts"][row, counts + token] += 1
            if expected["position"][row] + 1 >= rows + 4:
                expected["finished"][row] = FULL
            if token == stop:
                expected["finished"][row] = STOPPED
    # Where a row is finished, what penalize noted stays.
    live = expected["finished"] == LIVE
    for values in (after, expected):
        values["maxima_and_counts"][~live, :counts] = 0
    for name in NAMES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)
    assert {FULL, STOPPED} & {*after["finished"].tolist()}


NAMES = ("token", "position", "finished", "recent", "maxima_and_counts")


def test_maxima_are_reset_and_logits_that_allow_no_choice_end_the_row(device):
    logits = references.random(3, 600)
    logits[1, 599] = np.inf
    logits[2] = -np.inf
    with gw.tidy():
        state = state_of(device, 3, 600)
        penalize(gw.tensor(logits), state)
        advance([4, 5, 6], state)
        assert state.finished.tolist() == [LIVE, NOT_FINITE, ALL_EXCLUDED]
        assert state.token.tolist() == [[4], [8], [9]]
        assert state.maxima_and_counts.numpy()[0].tolist() == [0, 0, 0]


def test_wrong_tokens_are_refused(device):
    with gw.tidy():
        state = state_of(device, 2, 300)
        with pytest.raises(ShapeError, match="1 tokens for state of 2 rows"):
            advance([1], state)
        with pytest.raises(InvalidArgumentError, match=r"token 300 of row 1 .* \[0, 300\)"):
            advance([1, 300], state)
