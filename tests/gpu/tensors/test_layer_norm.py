"""Layer normalisation against NumPy, by both kernels."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded", "variant"), pytest.mark.native("NumPy")]


def parameters(width):
    return references.random(width, seed=5) + 1, references.random(width, seed=6)


@pytest.mark.parametrize(
    "shape",
    [(1,), (7, 1), (1, 2), (2, 127), (3, 128), (9, 129), (2, 5, 3), (4, 768), (0, 8)],
    ids=str,
)
def test_rows_are_normalised(shape):
    x, (weight, bias) = references.random(*shape, scale=4), parameters(shape[-1])
    result = ops.layer_norm(*map(gw.tensor, (x, weight, bias)))
    expected = references.layer_norm(x, weight, bias)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_epsilon():
    x, (weight, bias) = references.random(3, 10, scale=0.1), parameters(10)
    result = ops.layer_norm(x, weight, bias, 0.5)
    np.testing.assert_allclose(
        result.numpy(), references.layer_norm(x, weight, bias, 0.5), rtol=1e-5, atol=1e-6
    )


def test_a_large_mean_does_not_cancel():
    x, (weight, bias) = references.random(4, 300) + 1000, parameters(300)
    expected = references.layer_norm(x, weight, bias)
    np.testing.assert_allclose(ops.layer_norm(x, weight, bias).numpy(), expected, atol=2e-3)


def test_a_constant_row_gives_the_bias():
    weight, bias = parameters(65)
    result = ops.layer_norm(np.full((2, 65), 3.25, np.float32), weight, bias)
    np.testing.assert_allclose(result.numpy(), np.tile(bias, (2, 1)), atol=1e-6)


@pytest.mark.parametrize("columns", [1, 5, 8])
def test_padding_is_ignored_and_becomes_zero(columns):
    x, (weight, bias) = references.random(3, 8), parameters(8)
    expected = np.zeros((3, 8))
    expected[:, :columns] = references.layer_norm(x[:, :columns], weight[:columns], bias[:columns])
    x[:, columns:] = np.nan
    result = ops.layer_norm(x, weight, bias, columns=columns)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("narrow_grid")
def test_more_rows_than_one_row_of_workgroups():
    x, (weight, bias) = references.random(100, 30), parameters(30)
    expected = references.layer_norm(x, weight, bias)
    result = ops.layer_norm(x, weight, bias).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_rows_longer_than_one_thread_can_loop():
    # Four passes over 17,000 columns exceed llvmpipe's 65,535 iterations of one thread.
    x, (weight, bias) = references.random(2, 17_000), parameters(17_000)
    expected = references.layer_norm(x, weight, bias)
    result = ops.layer_norm(x, weight, bias).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "weight", "bias"), [((2, 3), (2,), (3,)), ((2, 3), (3,), (1, 3)), ((), (1,), (1,))]
)
def test_what_does_not_fit_is_refused_with_all_shapes(x, weight, bias):
    with pytest.raises(ShapeError) as raised:
        ops.layer_norm(*[np.zeros(shape, np.float32) for shape in (x, weight, bias)])
    assert all(str(shape) in str(raised.value) for shape in (x, weight, bias))


def test_other_bad_arguments_are_refused():
    x, (weight, bias) = references.random(2, 3), parameters(3)
    for columns in (0, 4, -1):
        with pytest.raises(ShapeError, match=rf"{columns} columns of x \(2, 3\): use 1 to 3"):
            ops.layer_norm(x, weight, bias, columns=columns)
    with pytest.raises(InvalidArgumentError, match="computes with float32"):
        ops.layer_norm(gw.tensor([[1, 2, 3]], "int32"), weight, bias)
