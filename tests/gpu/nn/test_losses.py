"""Loss per row of logits, and divergence between two, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import NO_TARGET, divergence, target_loss, token_odds
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = pytest.mark.native("NumPy")


COLUMNS = pytest.mark.parametrize("columns", [1, 3, 31, 32, 33, 255, 257, 5003])
ROWS = pytest.mark.parametrize("rows", [1, 2, 9])


@COLUMNS
@ROWS
@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
@pytest.mark.usefixtures("variant", "guarded", "no_leak", "narrow_grid")
def test_against_numpy(device, rows, columns, shift):
    logits = references.random(rows, columns, scale=5) + np.float32(shift)
    targets = np.random.default_rng(1).integers(0, columns, rows).astype(np.uint32)
    targets[rows // 2] = NO_TARGET if rows > 1 else columns - 1
    with gw.tidy():
        found = target_loss(gw.tensor(logits), gw.tensor(targets, "uint32")).numpy()
    chances = references.log_softmax(logits)
    expected = [0 if t == NO_TARGET else -row[t] for row, t in zip(chances, targets, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-4 if shift else 5e-6, rtol=1e-6)


@COLUMNS
@ROWS
@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.usefixtures("variant", "guarded", "no_leak", "narrow_grid")
def test_odds_against_numpy(device, rows, columns, shift):
    logits = references.random(rows, columns, scale=5) + np.float32(shift)
    logits[0, 1::3] = -np.inf  # tokens without a chance
    targets = np.random.default_rng(1).integers(0, columns, rows).astype(np.uint32)
    targets[0] -= targets[0] % 3
    targets[rows // 2] = NO_TARGET if rows > 1 else 0
    with gw.tidy():
        found = token_odds(gw.tensor(logits), gw.tensor(targets, "uint32")).numpy()
    chances = references.log_softmax(logits)
    with np.errstate(invalid="ignore"):
        entropies = -np.nansum(np.exp(chances) * chances, -1)
    for row, target in enumerate(targets):
        none = target == NO_TARGET
        loss = 0 if none else -chances[row, target]
        rank = 0 if none else (logits[row] > logits[row, target]).sum()
        total = np.logaddexp.reduce(logits[row].astype(np.float64))
        expected = (loss, entropies[row], rank, total)
        np.testing.assert_allclose(found[row], expected, atol=2e-4 if shift else 1e-5, rtol=2e-6)


def test_what_is_not_finite_is_not_hidden(device):
    logits = references.random(2, 40)
    logits[1, 7] = np.nan
    with gw.tidy():
        found = target_loss(gw.tensor(logits), gw.tensor([3, 4], "uint32")).numpy()
    assert np.isfinite(found[0])
    assert not np.isfinite(found[1])


def test_shapes_are_named(device):
    with gw.tidy():
        logits = gw.tensor(references.random(2, 4))
        for function in (target_loss, token_odds):
            with pytest.raises(ShapeError, match=r"logits \(2, 4\), targets \(3,\)"):
                function(logits, gw.tensor([1, 2, 3], "uint32"))


@COLUMNS
@ROWS
@pytest.mark.parametrize("apart, shift", [(0.0, 0), (1e-4, 0), (0.2, 1000), (4.0, 0)])
@pytest.mark.usefixtures("variant", "guarded", "no_leak", "narrow_grid")
def test_divergence_against_numpy(device, rows, columns, apart, shift):
    reference = references.random(rows, columns, scale=3)
    logits = reference + references.random(rows, columns, seed=1, scale=apart)
    logits += np.float32(shift)  # does not matter to a softmax
    targets = np.zeros(rows, np.uint32)
    targets[rows // 2] = NO_TARGET if rows > 1 else columns - 1
    with gw.tidy():
        found = divergence(gw.tensor(logits), gw.tensor(reference), gw.tensor(targets, "uint32"))
        nats, same = (part.numpy() for part in found)
    p, q = references.log_softmax(reference), references.log_softmax(logits)
    wanted = targets != NO_TARGET
    expected = (np.exp(p) * (p - q)).sum(-1) * wanted
    # Nothing cancels, so tiny divergences are right, too; a shift rounds the logits themselves.
    np.testing.assert_allclose(nats, expected, atol=1e-6 if shift else 1e-11, rtol=2e-3)
    assert nats.min() >= 0
    best = reference.argmax(-1) == logits.argmax(-1)
    np.testing.assert_array_equal(same, best * wanted)
    assert apart < 4 or columns < 31 or same.min() == 0


@pytest.mark.usefixtures("variant", "guarded")
def test_divergence_where_one_model_all_but_excludes_what_the_other_chooses(device):
    reference, logits = np.zeros((2, 2, 300), np.float32)
    reference[0, 5], logits[0, 6] = 200, 200  # each has no chance at all in the other
    reference[1, 5], logits[1, 5] = 200, 300
    with gw.tidy():
        parts = gw.tensor(logits), gw.tensor(reference), gw.tensor([0, 0], "uint32")
        nats, same = (part.tolist() for part in divergence(*parts))
    assert nats == pytest.approx([200, 0])
    assert same == [0, 1]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.usefixtures("variant")
def test_divergence_hides_nothing_that_is_not_finite(device, which):
    logits = references.random(2, 2, 40)
    logits[which, 1, 7] = np.nan
    with gw.tidy():
        nats, _ = divergence(
            gw.tensor(logits[0]), gw.tensor(logits[1]), gw.tensor([3, 4], "uint32")
        )
        finite = np.isfinite(nats.numpy())
    np.testing.assert_array_equal(finite, [True, False])


def test_shapes_of_a_divergence_are_named(device):
    with gw.tidy():
        logits, targets = gw.tensor(references.random(2, 4)), gw.tensor([1, 2], "uint32")
        with pytest.raises(ShapeError, match=r"reference \(2, 5\), targets \(2,\)"):
            divergence(logits, gw.tensor(references.random(2, 5)), targets)
        with pytest.raises(ShapeError, match=r"targets \(1,\)"):
            divergence(logits, logits, gw.tensor([1], "uint32"))


@pytest.mark.usefixtures("variant")
def test_rows_whose_loops_would_be_cut_short_are_refused(capabilities):
    capabilities(max_iterations=200)
    with gw.tidy():
        logits, targets = gw.tensor(references.random(1, 20_000)), gw.tensor([1], "uint32")
        for function in (target_loss, lambda x, targets: divergence(x, x, targets)):
            short = ops.slice(logits, (0, 0), (1, 4000))
            function(short, targets)  # by more threads
            with pytest.raises(LimitError, match=r"rows of 20,000 are too long .* after 200"):
                function(logits, targets)
