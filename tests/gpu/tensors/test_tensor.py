"""Tensors: round trips of values with shape and dtype; views, disposal, invalid values."""

from __future__ import annotations

import asyncio
import gc
import sys
from array import array
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu._version import __version__
from gpt2_wgpu.errors import DeviceLostError, DisposedTensorError, InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors.tensor import empty
from gpt2_wgpu.webgpu.recording import Recording

pytestmark = pytest.mark.native("NumPy")

VALUES = [
    (5, ()),
    ([], (0,)),
    ([[], []], (2, 0)),
    ([1, 2, 3], (3,)),
    ((4, 5), (2,)),
    ([[1], [2]], (2, 1)),
    ([[[1, 2, 3], [4, 5, 6]]], (1, 2, 3)),
    ([[True, False]], (1, 2)),
]


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "bool"])
@pytest.mark.parametrize(("values", "shape"), VALUES, ids=str)
def test_nested_values_come_back(values, shape, dtype):
    x = gw.tensor(values, dtype)
    assert (x.shape, x.dtype, x.ndim, x.size) == (shape, dtype, len(shape), int(np.prod(shape)))
    result = x.numpy()
    assert (result.shape, result.dtype) == (shape, np.dtype(dtype))
    expected = np.array(values).astype(dtype)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(x.tolist(), expected)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float64).reshape(3, 2),
        np.arange(12, dtype=np.int64).reshape(3, 4)[::2, ::-1],
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array([True, False]),
        np.float32(2.5),
        np.array(7),
        array("f", [1, 2]),
        array("d", [1, 2]),
        memoryview(array("i", [3, 4])),
    ],
    ids=lambda values: f"{type(values).__name__}",
)
def test_arrays_and_buffers_come_back(values):
    expected = np.asarray(values, np.float32)
    x = gw.tensor(values)
    assert x.shape == expected.shape
    np.testing.assert_array_equal(x.numpy(), expected)


def test_a_tensor_is_copied():
    x = gw.tensor([1, -2], "int32")
    y = gw.tensor(x)
    x.dispose()
    assert (y.tolist(), y.dtype) == ([1.0, -2.0], "float32")


def test_every_bit_survives():
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 0x00000001], np.uint32)
    floats = gw.tensor(bits.view(np.float32))
    np.testing.assert_array_equal(floats.numpy().view(np.uint32), bits)
    extremes = [-(2**31), 2**31 - 1]
    assert gw.tensor(extremes, "int32").tolist() == extremes
    assert gw.tensor([2**32 - 1], "uint32").tolist() == [2**32 - 1]


@pytest.mark.parametrize("values", [[[1, 2], [3]], [[1], 2], [[], [1]], [[[1]], [[1, 2]]]])
def test_ragged_values_are_refused(values, device, no_leak):
    with pytest.raises(ShapeError, match="ragged values: expected rows as in shape"):
        gw.tensor(values)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([2**31], "int32"),
        ([-1], "uint32"),
        ([1.5], "int32"),
        (["a"], "float32"),
        ("text", "float32"),
        (None, "float32"),
        ([1, [2]], "float32"),
        ({1, 2}, "float32"),
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(values, dtype, no_leak):
    with pytest.raises(InvalidArgumentError, match=f"these values are not {dtype}: "):
        gw.tensor(values, dtype)


@pytest.mark.parametrize("values", [[1e300], [[0.5], [-1e39]], 3.5e38], ids=str)
def test_numbers_too_large_for_f32_are_refused(values, no_leak):
    with pytest.raises(InvalidArgumentError, match=r"\S+ does not fit into float32"):
        gw.tensor(values)


def test_infinity_and_nan_are_values_too():
    infinity = float("inf")
    assert gw.tensor([infinity, -infinity]).tolist() == [infinity, -infinity]
    assert np.isnan(gw.tensor([float("nan")]).numpy()).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (2, 0, 2)], ids=str)
def test_nothing_as_nested_lists(shape):
    empty = np.zeros(shape, np.float32)
    x = gw.tensor(empty)
    assert x.shape == shape
    assert x.tolist() == empty.tolist()


@pytest.mark.parametrize("dtype", ["float64", "f32", "float16", None])
def test_unknown_types_are_refused(dtype):
    with pytest.raises(InvalidArgumentError, match="dtype must be one of"):
        gw.tensor([1.0], dtype)


class TestData:
    def test_needs_no_numpy(self):
        async def read():
            return await gw.tensor([[1, 2, 3], [4, 5, 6]], "int32").data()

        values = asyncio.run(read())
        assert isinstance(values, memoryview)
        assert (values.shape, values.format) == ((2, 3), "i")
        rows: Any = values.tolist()
        assert rows == [[1, 2, 3], [4, 5, 6]] and values[1, 2] == 6

    def test_many_reads_at_once(self):
        async def read():
            tensors = [gw.tensor([float(i)] * (i + 1)) for i in range(20)]
            return [list(values) for values in await asyncio.gather(*[t.data() for t in tensors])]

        assert asyncio.run(read()) == [[float(i)] * (i + 1) for i in range(20)]

    def test_number_and_nothing(self):
        async def read():
            return await gw.tensor(7.5).data(), await gw.tensor([]).data()

        number, nothing = asyncio.run(read())
        assert number.shape == () and number.tolist() == 7.5
        assert nothing.tolist() == []

    def test_numpy_takes_a_tensor_for_an_array(self):
        x = gw.tensor([1.0, 2.0])
        np.testing.assert_array_equal(np.asarray(x), [1, 2])
        assert np.asarray(x, np.int64).dtype == np.int64

    def test_a_read_leaves_nothing(self, device):
        x = gw.tensor(np.ones(1000))
        before = device.memory.info()
        x.numpy()
        after = device.memory.info()
        assert (after.num_bytes, after.num_buffers) == (before.num_bytes, before.num_buffers)
        x.dispose()


class TestViews:
    def test_share_the_buffer_until_the_last_is_gone(self, device, no_leak):
        x = gw.tensor([[1.0, 2.0], [3.0, 4.0]])
        before = device.memory.info()
        view = x.view((4,))
        during = device.memory.info()
        assert during.num_tensors == before.num_tensors + 1
        assert (during.num_buffers, during.num_bytes) == (before.num_buffers, before.num_bytes)
        x.dispose()
        assert view.tolist() == [1, 2, 3, 4]
        view.dispose()

    def test_have_as_many_elements(self):
        with pytest.raises(ShapeError, match=r"cannot view \(2,\) \(2 elements\) as \(3,\)"):
            gw.tensor([1.0, 2.0]).view((3,))
        with pytest.raises(
            InvalidArgumentError, match=r"shape must be integers .* not \(True, 2\)"
        ):
            gw.tensor([1.0, 2.0]).view((True, 2))


class TestDisposal:
    def test_is_idempotent_and_counted(self, device):
        before = device.memory.info()
        x = gw.tensor([1.0, 2.0, 3.0])
        during = device.memory.info()
        assert during.num_tensors == before.num_tensors + 1
        assert during.num_bytes == before.num_bytes + 12
        assert during.num_bytes_in_gpu == before.num_bytes_in_gpu + 256
        assert during.by_kind["workspace"] == before.by_kind["workspace"] + 256
        x.dispose()
        x.dispose()
        after = device.memory.info()
        assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)
        assert after.num_bytes_in_gpu == before.num_bytes_in_gpu
        assert after.num_bytes_allocated_in_gpu >= 256  # pooled

    def test_a_disposed_tensor_says_which_it_was(self, device):
        x = empty(device, (2, 3), label="hidden states")
        x.dispose()
        assert x.shape == (2, 3) and "disposed" in repr(x)
        for use in (x.numpy, x.tolist, lambda: x.view((6,)), lambda: gw.tensor(x)):
            with pytest.raises(
                DisposedTensorError, match=r"'hidden states' .*was freed by dispose"
            ):
                use()

    def test_a_forgotten_tensor_gives_its_memory_back(self, no_leak):
        gw.tensor([1.0])

    def test_a_forgotten_cycle_gives_a_usable_buffer_back(self, device):
        # The collector may finalise the buffer first: it must not come back from the pool dead.
        gc.collect()
        device.memory.trim()
        before = device.memory.info().num_bytes
        x = gw.tensor([1.0])
        cycle = [x, x.storage.buffer]
        cycle.append(cycle)
        del x, cycle
        gc.collect()
        assert device.memory.info().num_bytes == before
        y = gw.tensor([2.0])
        assert y.tolist() == [2.0]
        y.dispose()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([[1]], "int32", "[1, 1] int32: [[1]]"),
        (2.5, "float32", "[] float32: 2.5"),
        ([1, -0.125, 1 / 3, 1e20, np.nan], "float32", "[5] float32: [1. -0.125 0.33333 1e+20 nan]"),
        ([[True, False]], "bool", "[1, 2] bool: [[True False]]"),
        ([[], []], "float32", "[2, 0] float32"),
        (np.arange(100), "uint32", "[100] uint32: [0 1 2 ... 97 98 99]"),
        (
            np.arange(400).reshape(8, 1, 50), "int32",
            "[8, 1, 50] int32: [[[0 1 2 ... 47 48 49]] [[50 51 52 ... 97 98 99]] "
            "[[100 101 102 ... 147 148 149]] ... [[250 251 252 ... 297 298 299]] "
            "[[300 301 302 ... 347 348 349]] [[350 351 352 ... 397 398 399]]]",
        ),
        (np.zeros((7, 7, 7, 1)), "float32", "[7, 7, 7, 1] float32"),  # too many rows
    ],
    ids=lambda value: str(np.shape(value)),
)  # fmt: skip
def test_repr_shows_shape_dtype_and_values(no_leak, values, dtype, expected):
    with gw.tidy():
        assert repr(gw.tensor(values, dtype, label="ids")) == f"<Tensor 'ids' {expected}>"


def test_repr_reads_nothing_while_a_recording_is_open(device):
    with gw.tidy():
        x = gw.tensor([1.0])
        with Recording(device) as recording:
            assert repr(x + 1) == "<Tensor [1] float32>"
        assert not recording.was_read
        recording.close()


def test_repr_shows_no_values_that_cannot_be_read(device, monkeypatch):
    async def lost(ranges):
        raise DeviceLostError("the device is gone")

    with gw.tidy():
        x = gw.tensor([1.0])
        monkeypatch.setattr(device.queue, "read", lost)
        assert repr(x) == "<Tensor [1] float32>"


def test_repr_does_not_wait_where_it_cannot(monkeypatch):
    monkeypatch.setattr(sys.modules[gw.Tensor.__module__], "can_sync", lambda: False)
    with gw.tidy():
        assert repr(gw.tensor([1.0])) == "<Tensor [1] float32>"


def test_item_is_the_only_value(no_leak):
    with gw.tidy():
        assert gw.tensor([[2.5]]).item() == 2.5
        assert gw.tensor(True, "bool").item() is True
        for values in ([], [1.0, 2.0]):
            with pytest.raises(ShapeError, match=r"item\(\) is for one"):
                gw.tensor(values).item()


def test_t_is_the_transpose():
    with gw.tidy():
        x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        np.testing.assert_array_equal(gw.tensor(x).T.numpy(), x.T)


def test_a_bool_tensor_holds_truths(no_leak):
    with gw.tidy():
        x = gw.tensor([0, 2, -0.5, 0.0], "bool")
        assert (x.tolist(), x.nbytes) == ([False, True, True, False], 16)
        assert x[1:3].tolist() == [True, True]
        with pytest.raises(InvalidArgumentError, match="'a' is not a number"):
            gw.tensor(["a"], "bool")


def test_the_package_knows_its_version():
    assert gw.__version__ == __version__
