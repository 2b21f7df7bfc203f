"""Comparisons, logical operations, ``where`` and ``cast`` against NumPy."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops

pytestmark = [pytest.mark.usefixtures("guarded", "no_leak"), pytest.mark.native("NumPy")]

COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
OPERATORS = {  # `==` of tensors is identity
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "bool"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_numpy_s(name, dtype):
    a, b = (RANDOM.integers(0, 3, shape).astype(dtype) for shape in ((5, 1, 13), (3, 1)))
    if dtype == "int32":
        a, b = a - 2, b - 2
    expected = getattr(np, name)(a, b)
    with gw.tidy():
        x, y = gw.tensor(a, dtype), gw.tensor(b, dtype)
        found = getattr(ops, name)(x, y)
        assert (found.shape, found.dtype) == (expected.shape, "bool")
        assert found.numpy().dtype == bool
        np.testing.assert_array_equal(found.numpy(), expected)
        if name in OPERATORS:
            np.testing.assert_array_equal(OPERATORS[name](x, y).numpy(), expected)
            np.testing.assert_array_equal(OPERATORS[name](x, 1).numpy(), OPERATORS[name](a, 1))


def test_nan_is_unequal_to_all():
    with gw.tidy():
        x = gw.tensor([float("nan"), 1.0])
        assert ops.equal(x, x).tolist() == [False, True]
        assert (x > 0).tolist() == [False, True]


def test_logical_operations_are_numpy_s():
    a, b = (
        RANDOM.integers(0, 2, (4, 1, 70)).astype(bool),
        RANDOM.integers(0, 2, (3, 1)).astype(bool),
    )
    with gw.tidy():
        x, y = gw.tensor(a, "bool"), gw.tensor(b, "bool")
        np.testing.assert_array_equal((x & y).numpy(), a & b)
        np.testing.assert_array_equal((x | y).numpy(), a | b)
        np.testing.assert_array_equal((~x).numpy(), ~a)
        np.testing.assert_array_equal((True & x | False).numpy(), a)
        with pytest.raises(InvalidArgumentError, match="computes with bool"):
            x & gw.tensor([1.0])


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_where_is_numpy_s(dtype):
    condition = RANDOM.integers(0, 2, (4, 1, 70)).astype(bool)
    a, b = (RANDOM.integers(0, 5, shape).astype(dtype) for shape in ((3, 1), (4, 3, 70)))
    expected = np.where(condition, a, b)
    with gw.tidy():
        found = ops.where(gw.tensor(condition, "bool"), gw.tensor(a, dtype), gw.tensor(b, dtype))
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        np.testing.assert_array_equal(found.numpy(), expected)
        assert ops.where([True, False], 1.0, gw.tensor([3.0, 4.0])).tolist() == [1.0, 4.0]
        with pytest.raises(ShapeError, match="where: shapes"):
            ops.where([True, False, True], 1.0, gw.tensor([3.0, 4.0]))
        with pytest.raises(InvalidArgumentError, match="computes with bool"):
            ops.where(gw.tensor([1.0]), 1.0, 2.0)


@pytest.mark.parametrize("to", ["float32", "int32", "uint32", "bool"])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "bool"])
def test_casts_are_numpy_s(dtype, to):
    x = np.array([0, 1, 2, 7.75, 2**20, 1.5] * 11)
    if dtype in ("float32", "int32") and to != "uint32":
        x = np.concatenate([x, -x])
    x = x.astype(dtype)
    with gw.tidy():
        found = ops.cast(gw.tensor(x, dtype), to)
        assert found.dtype == to
        np.testing.assert_array_equal(found.numpy(), x.astype(to))


def test_a_float_beyond_the_integers_is_cast_to_the_nearest():
    with gw.tidy():
        x = gw.tensor([-5.0, 1e20, -1e20])
        assert ops.cast(x, "uint32").tolist()[0] == 0
        assert ops.cast(x, "int32").tolist()[2] == -(2**31)


def test_a_cast_to_an_unknown_dtype_is_refused():
    with gw.tidy(), pytest.raises(InvalidArgumentError, match="dtype must be one of"):
        ops.cast(gw.tensor([1.0]), "float64")


@pytest.mark.usefixtures("narrow_grid")
def test_more_elements_than_one_row_of_workgroups():
    x = RANDOM.standard_normal((31, 33)).astype(np.float32)
    with gw.tidy():
        tensor = gw.tensor(x)
        found = ops.cast(ops.where(tensor > 0, tensor, 0.0), "int32")
        np.testing.assert_array_equal(found.numpy(), np.where(x > 0, x, 0).astype(int))
