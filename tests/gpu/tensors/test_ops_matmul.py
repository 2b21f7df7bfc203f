"""Matrix products against NumPy, by both kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, LimitError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded", "variant"), pytest.mark.native("NumPy")]


def compare(a, b):
    left, right = references.random(*a, seed=1), references.random(*b, seed=2)
    result = ops.matmul(gw.tensor(left), gw.tensor(right))
    expected = np.matmul(left.astype(np.float64), right.astype(np.float64))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 15, 16, 17])
@pytest.mark.parametrize("depth", [1, 16, 31])
@pytest.mark.parametrize("columns", [1, 15, 33])
def test_sizes_around_a_tile(rows, depth, columns):
    compare((rows, depth), (depth, columns))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((3, 5), (5,)),
        ((2, 3, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((4, 3, 5), (5, 7)),
        ((3, 5), (4, 5, 7)),
        ((4, 3, 5), (4, 5, 7)),
        ((1, 3, 5), (4, 5, 7)),
        ((4, 3, 5), (1, 5, 7)),
        ((2, 1, 3, 5), (3, 5, 2)),
        ((2, 1, 1, 3, 5), (1, 3, 2, 5, 2)),
        ((3, 1, 17, 5), (2, 5, 17)),
        ((0, 5), (5, 3)),
        ((3, 0), (0, 4)),
        ((0, 3, 5), (5, 2)),
        ((0, 3, 5), (1, 5, 2)),
    ],
    ids=str,
)
def test_axes_as_in_numpy(a, b):
    compare(a, b)


@given(st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_shapes(data):
    size = st.integers(1, 40)
    rows, depth, columns = data.draw(size), data.draw(size), data.draw(size)
    batch = data.draw(st.lists(st.integers(1, 3), max_size=3))
    ones = [data.draw(st.sampled_from([1, length])) for length in batch]
    a = (*batch, rows, depth)
    b = (*ones[data.draw(st.integers(0, len(ones))) :], depth, columns)
    compare(a, b)


def test_long_sums_are_accumulated_in_f32():
    x = np.full((1, 50001), 0.1, np.float32)
    result = ops.matmul(gw.tensor(x), gw.tensor(x.T)).numpy()
    np.testing.assert_allclose(result, x.astype(np.float64) @ x.T, rtol=1e-3)


def test_sums_that_the_adapter_would_cut_short_are_refused(capabilities):
    capabilities(max_iterations=100)
    compare((2, 80), (80, 2))
    with pytest.raises(LimitError, match="sums of 500 products are too long"):
        ops.matmul(np.zeros((1, 500), np.float32), np.zeros((500, 1), np.float32))


@pytest.mark.usefixtures("narrow_grid")
def test_more_tiles_than_one_row_of_workgroups():
    compare((3, 40, 20), (3, 20, 70))
    compare((100, 30), (30, 100))


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (2, 3)), ((3,), (2,)), ((2, 3), (2,)), ((2, 2, 3), (3, 3, 4))], ids=str
)
def test_what_does_not_fit_is_refused_with_both_shapes(a, b):
    with pytest.raises(ShapeError) as raised:
        ops.matmul(np.zeros(a, np.float32), np.zeros(b, np.float32))
    assert str(a) in str(raised.value) and str(b) in str(raised.value)


def test_numbers_and_integers_are_refused():
    with pytest.raises(ShapeError, match=r"\(\) and \(2,\).*use mul"):
        ops.matmul(2.0, [1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match="matmul computes with float32"):
        ops.matmul(gw.tensor([1], "int32"), gw.tensor([1], "int32"))
