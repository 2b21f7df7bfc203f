"""Sum, mean, max and min against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded", "no_leak"), pytest.mark.native("NumPy")]

CASES = [
    ((), None),
    ((1,), 0),
    ((64,), -1),
    ((65,), None),
    ((4099,), 0),  # three dispatches
    ((3, 5, 7), None),
    ((3, 5, 7), 1),
    ((3, 5, 7), (0, 2)),
    ((3, 130, 2), (-1, 1)),
    ((2, 3, 4, 67), [0, 1, 3]),
    ((2, 3), ()),
    ((0, 3), 1),
]
FUNCTIONS = ["sum", "mean", "max", "min"]


@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_numpy_s(name, shape, axis):
    x = references.random(*shape)
    axes = tuple(axis) if isinstance(axis, list) else axis
    with gw.tidy():
        tensor = gw.tensor(x)
        for keepdims in (False, True):
            expected = getattr(np, name)(x.astype(float), axis=axes, keepdims=keepdims)
            found = getattr(ops, name)(tensor, axis, keepdims)
            assert (found.shape, found.dtype) == (expected.shape, "float32")
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_integers_are_exact_and_wrap(name, dtype):
    info = np.iinfo(dtype)
    x = np.random.default_rng(3).integers(info.min, info.max, (3, 131), dtype)
    with gw.tidy():
        found = getattr(ops, name)(gw.tensor(x, dtype), 1)
        assert found.dtype == dtype
        with np.errstate(over="ignore"):
            expected = getattr(np, name)(x, 1, **({"dtype": dtype} if name == "sum" else {}))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_long_sum_keeps_its_digits():
    """A running f32 sum of 300,000 times 0.1 is wrong by 80."""
    with gw.tidy():
        x = gw.tensor(np.full(300_000, 0.1, np.float32))
        assert ops.sum(x).item() == pytest.approx(30_000, rel=3e-6)


def test_nothing_is_summed_to_zero():
    with gw.tidy():
        x = gw.tensor(np.zeros((2, 0, 3), np.float32))
        assert ops.sum(x, 1).tolist() == [[0, 0, 0], [0, 0, 0]]
        assert np.isnan(ops.mean(x, 1).numpy()).all()
        for function in (ops.max, ops.min):
            assert function(x, 2).shape == (2, 0)
            with pytest.raises(ShapeError, match=r"no elements along axes \(1,\)"):
                function(x, 1)


@pytest.mark.usefixtures("narrow_grid")
def test_more_results_than_one_row_of_workgroups():
    x = references.random(67, 99)
    with gw.tidy():
        np.testing.assert_allclose(ops.max(x, 0).numpy(), x.max(0))
        np.testing.assert_allclose(ops.sum(x, 1).numpy(), x.sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [2, -3, (0, 0), (0, -2), 0.5, "a"], ids=str)
def test_other_axes_are_refused(axis):
    with gw.tidy(), pytest.raises(InvalidArgumentError, match="axis"):
        ops.sum(gw.tensor([[1.0, 2.0]]), axis)


@pytest.mark.parametrize("place", [0, 1, 63, 64, 200, 8191])
def test_extremes_with_nan_are_nan(place):
    """NumPy's, for NaN of either sign; infinities are numbers."""
    x = np.linspace(-1, 1, 3 * 8192, dtype=np.float32).reshape(3, 8192)
    x[0, place] = np.nan
    x[1, place] = -np.nan
    x[2, place] = np.inf
    with gw.tidy():
        tensor = gw.tensor(x)
        for name in ("max", "min"):
            np.testing.assert_array_equal(
                getattr(ops, name)(tensor, 1).numpy(), getattr(np, name)(x, 1)
            )


def test_the_message_of_a_fractional_axis():
    with gw.tidy(), pytest.raises(InvalidArgumentError, match=r"axis must be an integer, not 1\.0"):
        ops.sum(gw.tensor([[1.0, 2.0]]), axis=1.0)


def test_a_mean_is_of_floats():
    with gw.tidy(), pytest.raises(InvalidArgumentError, match="computes with float32"):
        ops.mean(gw.tensor([1, 2], "int32"))
