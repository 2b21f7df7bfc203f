"""Softmax, log_softmax, argmax and top_k against NumPy, by both kernels of each."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, LimitError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded", "variant"), pytest.mark.native("NumPy")]

SHAPES = [
    ((1,), -1),
    ((127,), 0),
    ((128,), -1),
    ((129,), -1),
    ((9, 301), -1),
    ((3, 5, 7), 0),
    ((3, 5, 7), 1),
    ((3, 130, 2), -2),
    ((2, 3, 1), -1),
]


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
class TestShapes:
    def test_softmax(self, shape, axis):
        x = references.random(*shape, scale=3)
        result = ops.softmax(gw.tensor(x), axis).numpy()
        np.testing.assert_allclose(result, references.softmax(x, axis), rtol=2e-6, atol=1e-8)

    def test_log_softmax(self, shape, axis):
        x = references.random(*shape, scale=3)
        result = ops.log_softmax(gw.tensor(x), axis).numpy()
        np.testing.assert_allclose(result, references.log_softmax(x, axis), rtol=2e-6, atol=2e-6)

    def test_argmax(self, shape, axis):
        x = references.random(*shape)
        result = ops.argmax(gw.tensor(x), axis)
        assert result.dtype == "int32"
        np.testing.assert_array_equal(result.numpy(), np.argmax(x, axis))


@pytest.mark.parametrize("function", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_softmax_of_nothing(function, shape):
    assert function(np.zeros(shape, np.float32)).shape == shape


def test_softmax_of_large_values_neither_overflows_nor_underflows():
    x = np.array([[1e4, 1e4 - 1, -1e4], [-3e38, -3e38, -3e38], [3e38, 0, -3e38]], np.float32)
    result = ops.softmax(gw.tensor(x)).numpy()
    np.testing.assert_allclose(result, references.softmax(x), rtol=1e-6)
    logarithms = ops.log_softmax(gw.tensor(x[:2])).numpy()
    np.testing.assert_allclose(logarithms, references.log_softmax(x[:2]), rtol=1e-6)


def test_softmax_of_masked_places_is_zero():
    x = np.array([[1.0, -1e9, 2.0, -3e38]], np.float32)
    result = ops.softmax(gw.tensor(x)).numpy()
    assert result[0, 1] == result[0, 3] == 0
    np.testing.assert_allclose(result[0, [0, 2]], references.softmax(x[0, [0, 2]]), rtol=1e-6)


def test_more_rows_than_webgpu_allows_workgroups_in_a_row():
    x = references.random(65_537, 2)
    np.testing.assert_allclose(ops.softmax(x).numpy(), references.softmax(x), rtol=1e-5)


@pytest.mark.usefixtures("narrow_grid")
@pytest.mark.parametrize("axis", [0, 1])
def test_more_rows_than_one_row_of_workgroups(axis):
    x = references.random(101, 99)
    tensor = gw.tensor(x)
    np.testing.assert_allclose(
        ops.softmax(tensor, axis).numpy(), references.softmax(x, axis), rtol=1e-5
    )
    np.testing.assert_array_equal(ops.argmax(tensor, axis).numpy(), np.argmax(x, axis))


def test_rows_longer_than_one_thread_can_loop(device):
    # Three passes over 22,000 columns exceed llvmpipe's 65,535 iterations of one thread.
    x = references.random(3, 22_000)
    tensor = gw.tensor(x)
    np.testing.assert_allclose(ops.softmax(tensor).numpy(), references.softmax(x), rtol=2e-5)
    values, indices = ops.top_k(tensor, 7)  # several dispatches
    np.testing.assert_array_equal(indices.numpy(), references.top_k(x, 7)[1])
    np.testing.assert_array_equal(values.numpy(), references.top_k(x, 7)[0])


def test_rows_that_the_adapter_would_cut_short_are_refused(capabilities):
    capabilities(max_iterations=100)
    x = np.zeros((1, 20_000), np.float32)
    for function in (ops.softmax, ops.argmax):
        with pytest.raises(LimitError, match=r"rows of 20,000 are too long .* after 100"):
            function(x)


def test_the_first_of_equals_wins():
    x = np.zeros((4, 300), np.float32)
    x[1, [77, 205, 299]] = 5
    x[2, [128, 127]] = 1
    x[3, :] = -3.4e38
    assert ops.argmax(gw.tensor(x)).tolist() == [0, 77, 127, 0]
    values, indices = ops.top_k(gw.tensor(x), 4)
    np.testing.assert_array_equal(indices.numpy()[1], [77, 205, 299, 0])
    np.testing.assert_array_equal(values.numpy()[1], [5, 5, 5, 0])
    np.testing.assert_array_equal(indices.numpy()[[0, 3]], [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize(
    ("shape", "k"),
    [((1,), 1), ((5,), 5), ((3, 127), 4), ((2, 3, 130), 130), ((7, 1000), 50), ((0, 4), 2)],
    ids=str,
)
def test_top_k(shape, k):
    x = np.round(references.random(*shape), 1)  # rounded: with ties
    values, indices = ops.top_k(gw.tensor(x), k)
    expected_values, expected_indices = references.top_k(x, k)
    assert (values.shape, values.dtype) == (expected_values.shape, "float32")
    assert (indices.shape, indices.dtype) == (expected_indices.shape, "int32")
    np.testing.assert_array_equal(indices.numpy(), expected_indices)
    np.testing.assert_array_equal(values.numpy(), expected_values)


@pytest.mark.parametrize("size", [6, 22_000])  # 22,000: several dispatches
def test_nan_is_the_largest(size):
    """The order of NumPy and torch: NaN of either sign, infinity, numbers, -infinity."""
    x = np.full((2, size), -2.0, np.float32)
    x[0, :6] = [3, np.nan, np.inf, -np.inf, -np.nan, 3]
    x[1, :6] = [-np.inf, -0.0, 0.0, 1, -np.inf, np.inf]
    tensor = gw.tensor(x)
    values, indices = ops.top_k(tensor, 6)
    assert indices.tolist()[0][:5] == [1, 4, 2, 0, 5]
    assert indices.tolist()[1][:4] == [5, 3, 1, 2]
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, indices.numpy(), 1))
    assert ops.argmax(tensor).tolist() == [1, 5]


def test_bad_arguments_are_refused():
    x = references.random(2, 3)
    for k in (0, 4, -1):
        with pytest.raises(InvalidArgumentError, match=rf"k = {k} for shape \(2, 3\): use 1 to 3"):
            ops.top_k(x, k)
    with pytest.raises(InvalidArgumentError, match="k must be"):
        ops.top_k(x, 1.5)
    with pytest.raises(ShapeError, match=r"axis 1 of shape \(2, 0\) is empty"):
        ops.argmax(np.zeros((2, 0), np.float32))
    for function in (ops.softmax, ops.argmax, lambda x: ops.top_k(x, 1)):
        with pytest.raises(InvalidArgumentError, match=r"no axis -1 in shape \(\)"):
            function(1.0)
        with pytest.raises(InvalidArgumentError, match="computes with float32"):
            function(gw.tensor([1], "int32"))
