"""Kernels of contrastive search, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn import append_hidden, similarity

pytestmark = pytest.mark.native("NumPy")

SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (3, 2, 33, 20), (1, 5, 130, 64)]


@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.parametrize(("groups", "rows", "length", "width"), SHAPES)
def test_similarity(groups, rows, length, width):
    rng = np.random.default_rng(length)
    x = rng.standard_normal((groups * rows, width)).astype(np.float32)
    history = rng.standard_normal((groups, length, width)).astype(np.float32)
    position = np.repeat(rng.integers(0, length + 1, (groups, 1)), rows, 1)
    with gw.tidy("test"):
        given = gw.tensor(x), gw.tensor(history), gw.tensor(position, "uint32")
        found = similarity(*given).numpy().reshape(groups, rows, length)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    old = history / np.linalg.norm(history, axis=-1, keepdims=True)
    expected = np.einsum("grd,gtd->grt", unit.reshape(groups, rows, width), old)
    expected = np.where(np.arange(length) < position[:, :, None], expected, -2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.parametrize(("groups", "rows", "length", "width"), SHAPES)
def test_append_hidden(groups, rows, length, width):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((groups * rows, width)).astype(np.float32)
    history = rng.standard_normal((groups, length, width)).astype(np.float32)
    parents = np.repeat(rng.integers(0, rows, (groups, 1)), rows, 1)
    position = np.repeat(rng.integers(1, length + 1, (groups, 1)), rows, 1)
    first = np.repeat(position[:, :1] - np.arange(groups)[:, None] % 2, rows, 1)
    with gw.tidy("test"):
        old = gw.tensor(history)
        words = (gw.tensor(values, "uint32") for values in (parents, position, first))
        append_hidden(gw.tensor(x), old, *words)
        found = old.numpy()
    expected = history.copy()
    for g in range(groups):
        if position[g, 0] > first[g, 0]:
            expected[g, position[g, 0] - 1] = x[g * rows + parents[g, 0]]
    np.testing.assert_array_equal(found, expected)


def test_wrong_shapes_are_rejected(device):
    with gw.tidy("test"):
        x, history = gw.tensor(np.zeros((6, 4))), gw.tensor(np.zeros((2, 5, 4)))
        right, wrong = (gw.tensor(np.zeros(s, int), "uint32") for s in ((2, 3), (3, 2)))
        with pytest.raises(ShapeError, match="similarity: x"):
            similarity(x, history, wrong)
        with pytest.raises(ShapeError, match="parents"):
            append_hidden(x, history, wrong, right, right)
