"""Arithmetic and activations against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.ops.elementwise import ACTIVATIONS, activate
from gpt2_wgpu.tensors.ops.operands import full
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded"), pytest.mark.native("NumPy")]

NUMPY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
SHAPES = [
    ((), ()),
    ((1,), (1,)),
    ((63,), (63,)),
    ((65,), ()),
    ((), (3, 5)),
    ((3, 5), (5,)),
    ((3, 1), (1, 5)),
    ((7, 64), (7, 1)),
    ((2, 1, 3, 1, 2, 1), (1, 2, 1, 3, 1, 2)),
    ((4, 1, 6), (2, 1, 5, 1)),
    ((0, 3), (1, 3)),
]


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_arithmetic_broadcasts_as_numpy(name, a, b):
    left, right = references.random(*a, seed=1), references.random(*b, seed=2)
    result = getattr(ops, name)(gw.tensor(left), gw.tensor(right))
    expected = NUMPY[name](left, right)
    assert (result.shape, result.dtype) == (expected.shape, "float32")
    np.testing.assert_allclose(result.numpy(), expected, rtol=3e-7)


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_integers_stay_integers_and_wrap(name):
    left = np.array([[1], [-7], [2**31 - 1], [-(2**31)]], np.int32)
    right = np.array([3, -1, 2**30], np.int32)
    result = getattr(ops, name)(gw.tensor(left, "int32"), gw.tensor(right, "int32"))
    assert result.dtype == "int32"
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result.numpy(), NUMPY[name](left, right))


def test_numbers_and_lists_take_the_type_of_the_tensor():
    x = gw.tensor([[1, 2], [3, 4]], "int32")
    assert ops.sub(10, x).tolist() == [[9, 8], [7, 6]]
    assert ops.mul(x, [2, 3]).tolist() == [[2, 6], [6, 12]]
    assert ops.add([1, 2], [3, 4]).tolist() == [4.0, 6.0]
    assert ops.div(1, gw.tensor([4.0])).tolist() == [0.25]


def test_more_elements_than_webgpu_allows_workgroups_in_a_row():
    x = np.arange(65535 * 64 + 65, dtype=np.float32)
    np.testing.assert_array_equal(ops.add(gw.tensor(x), 1).numpy(), x + 1)


@pytest.mark.usefixtures("narrow_grid")
def test_more_elements_than_one_row_of_workgroups():
    x = references.random(30, 50)
    np.testing.assert_array_equal(ops.relu(gw.tensor(x)).numpy(), np.maximum(x, 0))
    np.testing.assert_array_equal(full(gw.default_device(), (1000,), 3).numpy(), [3] * 1000)


def test_operands_that_do_not_fit_are_refused():
    f, i, u = gw.tensor([1.0, 2.0]), gw.tensor([1, 2], "int32"), gw.tensor([1, 2], "uint32")
    with pytest.raises(ShapeError, match=r"add: shapes \(2,\) and \(3,\)"):
        ops.add(f, [1, 2, 3])
    with pytest.raises(InvalidArgumentError, match=r"types differ: .*float32.*int32"):
        ops.add(f, i)
    with pytest.raises(InvalidArgumentError, match=r"div computes with float32, not .*int32"):
        ops.div(i, i)
    with pytest.raises(InvalidArgumentError, match=r"not .*uint32"):
        ops.add(u, 1)
    with pytest.raises(InvalidArgumentError, match=r"1\.5 is not a valid int32"):
        ops.add(i, 1.5)
    with pytest.raises(InvalidArgumentError, match="2147483648 is not a valid int32"):
        ops.add(i, 2**31)
    f.dispose()
    with pytest.raises(DisposedTensorError):
        ops.add(f, 1)


def test_tensors_of_two_devices_are_refused():
    here = gw.tensor([1.0])
    with gw.Device():
        there = gw.tensor([1.0])
        with pytest.raises(InvalidArgumentError, match="two devices"):
            ops.add(here, there)


GRID = np.linspace(-10, 10, 20011).astype(np.float32)
FAR = np.array([0.0, -0.0, 15, -15, 88, -88, 1e4, -1e4, 1e30, -1e30], np.float32)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_over_the_whole_range(kind):
    result = activate(gw.tensor(GRID), kind).numpy()
    expected = references.activation(kind, GRID)
    # 4e-7 absolute where |x| is small, a few ulp of x where it is not
    np.testing.assert_allclose(result, expected, rtol=3e-7, atol=4e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_extreme_arguments_are_finite(kind):
    result = activate(gw.tensor(FAR), kind).numpy()
    limit = {"tanh": np.sign(FAR), "sigmoid": (np.sign(FAR) + 1) / 2, "linear": FAR}
    expected = limit.get(kind, np.maximum(FAR, 0))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=5e-5)


def test_erf_gelu_keeps_its_precision_in_the_tail():
    x = np.linspace(-5, -1, 401).astype(np.float32)  # 1 + erf would have lost all digits at -5
    np.testing.assert_allclose(
        ops.gelu(gw.tensor(x), approximate=False).numpy(),
        references.activation("gelu_erf", x),
        rtol=4e-6,
    )


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (ops.gelu, "gelu_tanh"),
        (lambda x: ops.gelu(x, approximate=False), "gelu_erf"),
        (ops.relu, "relu"),
        (ops.silu, "silu"),
        (ops.sigmoid, "sigmoid"),
        (ops.tanh, "tanh"),
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 5)], ids=str)
def test_named_activations(function, kind, shape):
    x = references.random(*shape)
    np.testing.assert_allclose(
        function(gw.tensor(x)).numpy(), references.activation(kind, x), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_nan_stays_nan(kind):
    result = activate(gw.tensor([float("nan"), 1.0, -1.0]), kind).numpy()
    np.testing.assert_array_equal(np.isnan(result), [True, False, False])


def test_unknown_activations_and_integers_are_refused():
    with pytest.raises(InvalidArgumentError, match="'swish' is none of linear, gelu_tanh"):
        activate([1.0], "swish")
    with pytest.raises(InvalidArgumentError, match="gelu_tanh computes with float32"):
        ops.gelu(gw.tensor([1], "int32"))


@pytest.mark.parametrize("shape", [(), (0,), (63,), (3, 65)], ids=str)
def test_square_roots(shape):
    x = np.abs(references.random(*shape))
    result = ops.sqrt(gw.tensor(x))
    assert result.shape == shape
    np.testing.assert_allclose(result.numpy(), np.sqrt(x), rtol=1e-6)
    assert ops.sqrt([0.0, 4.0, np.inf]).tolist() == [0.0, 2.0, np.inf]
