"""Indices, new axes and ones: NumPy's results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("NumPy")]

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
KEYS = [
    0, -1, slice(None), slice(1, 3), slice(None, None, 2), slice(-2, None), slice(5, 9), ...,
    None, (0, 1, 2), (slice(None), slice(None), 3), (..., -1), (1, ...), (0, ..., slice(1, 5, 3)),
    (None, 0, None, ..., None), (slice(None), 2, slice(None, 3)), (slice(1, 1), 0),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32"])
def test_an_index_selects_what_numpy_selects(device: gw.Device, key: Any, dtype: str) -> None:
    with gw.tidy():
        x = gw.tensor(X.astype(dtype), dtype)
        found = x[key]
        expected = X.astype(dtype)[key]
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (3, ShapeError, "index 3 is out of range for an axis of 3"),
        ((0, -5), ShapeError, "index -5 is out of range for an axis of 4"),
        ((0, 0, 0, 0), ShapeError, "too many indices for 3 axes"),
        ((..., ...), ShapeError, "too many indices"),
        (slice(None, None, -1), InvalidArgumentError, "is not positive"),
        (slice(None, None, 0), InvalidArgumentError, "is not positive"),
        (slice(0, 1.5), InvalidArgumentError, "is not a slice of integers"),
        (slice("a", None), InvalidArgumentError, "is not a slice of integers"),
        (True, InvalidArgumentError, "takes integers, slices, ... and None, not True"),
        ((0, slice(False, 2)), InvalidArgumentError, "is not a slice of integers"),
        (1.0, InvalidArgumentError, "takes integers, slices"),
        ([0, 1], InvalidArgumentError, "see ops.gather"),
    ],
)
def test_other_indices_are_refused(
    device: gw.Device, key: Any, error: type[Exception], message: str
) -> None:
    with gw.tidy(), pytest.raises(error, match=message):
        gw.tensor(X)[key]


def test_a_tensor_cannot_be_iterated(device: gw.Device) -> None:
    """Element after element would be read; `in` and unpacking would loop, too."""
    with gw.tidy():
        x = gw.tensor([1.0, 2.0])
        uses: list[Callable[[Any], Any]] = [iter, list, lambda x: 1.0 in x]
        for use in uses:
            with pytest.raises(TypeError, match=r"not iterable|not a container"):
                use(x)


@pytest.mark.parametrize("axis", [0, 1, 3, -1, -4])
def test_expand_dims(device: gw.Device, axis: int) -> None:
    with gw.tidy():
        assert gw.ops.expand_dims(gw.tensor(X), axis).shape == np.expand_dims(X, axis).shape
    for wrong, message in (
        (4, r"axis 4 is not in \[-4, 3\], for shape \(3, 4, 5\)"),
        (-5, r"axis -5 is not in \[-4, 3\]"),
        (1.0, "axis must be an integer, not 1.0"),
        (True, "axis must be an integer, not True"),
    ):
        with pytest.raises(InvalidArgumentError, match=message), gw.tidy():
            gw.ops.expand_dims(gw.tensor(X), wrong)


def test_booleans_are_not_integers(device: gw.Device) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda x: ops.reshape(x, True),
        lambda x: ops.sum(x, axis=True),
        lambda x: ops.softmax(x, False),
        lambda x: ops.transpose(x, (True, False, 2)),
        lambda x: ops.gather(x, [True]),
        lambda x: ops.slice(x, (True, 0, 0), (1, 1, 1)),
        lambda x: ops.top_k(x, True),
    ]
    for call in calls:
        with gw.tidy(), pytest.raises(InvalidArgumentError, match="integer"):
            call(gw.tensor(X))


def test_numpy_integers_are_integers(device: gw.Device) -> None:
    with gw.tidy():
        x = gw.tensor(X)
        assert ops.reshape(x, np.int64(60)).shape == (60,)
        assert x[np.int32(1), slice(np.int64(0), np.int64(2))].shape == (2, 5)
        assert ops.sum(x, axis=np.int64(1)).shape == (3, 5)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32"])
def test_ones_like(device: gw.Device, dtype: str) -> None:
    with gw.tidy():
        ones = gw.ops.ones_like(gw.tensor(X.astype(dtype), dtype))
        assert (ones.shape, ones.dtype) == (X.shape, dtype)
        assert (ones.numpy() == 1).all()


@pytest.mark.parametrize(
    ("shape", "to"), [((), (2, 3)), ((3, 1), (2, 3, 4)), ((4,), (4,)), ((1,), (0,))]
)
def test_broadcast_to_repeats_as_numpy(device: gw.Device, shape: Any, to: Any) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with gw.tidy():
        np.testing.assert_array_equal(ops.broadcast_to(x, to).numpy(), np.broadcast_to(x, to))
        for wrong in ((*to, -1), (*to[:-1], to[-1] + 3, 2)):
            with pytest.raises(ShapeError, match="broadcast"):
                ops.broadcast_to([[[1.0] * 3] * 3], wrong)
