"""The loss of each row of logits against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.layers import NO_TARGET, target_loss
from tests.gpu import references

pytestmark = pytest.mark.native("NumPy")


@pytest.mark.parametrize("columns", [1, 3, 31, 32, 33, 255, 257, 5003])
@pytest.mark.parametrize("rows", [1, 2, 9])
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
        with pytest.raises(ShapeError, match=r"logits \(2, 4\), targets \(3,\)"):
            target_loss(logits, gw.tensor([1, 2, 3], "uint32"))
