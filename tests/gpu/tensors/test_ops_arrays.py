"""Reshape, slice, concat, transpose, gather and slice_update against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded"), pytest.mark.native("NumPy")]


def numbered(*shape, dtype=np.float32):
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def on_gpu(values):
    return gw.tensor(values, str(values.dtype))


class TestReshape:
    @pytest.mark.parametrize("shape", [(6, 4), (-1,), (2, -1, 2), 24, (1, 24, 1), -1], ids=str)
    def test_same_elements(self, shape):
        x = numbered(2, 3, 4)
        result = ops.reshape(gw.tensor(x), shape)
        np.testing.assert_array_equal(result.numpy(), x.reshape(shape))
        assert result.shape == x.reshape(shape).shape

    def test_shares_memory_and_outlives_its_source(self, device):
        x = gw.tensor(numbered(2, 3))
        buffers = device.memory.info().num_buffers
        y = ops.reshape(x, (3, 2))
        assert device.memory.info().num_buffers == buffers
        x.dispose()
        assert y.tolist() == [[0, 1], [2, 3], [4, 5]]

    def test_empty(self):
        assert ops.reshape(gw.tensor(numbered(0, 3)), (3, 0)).shape == (3, 0)
        assert ops.reshape(gw.tensor(numbered(0, 3)), (-1, 2)).shape == (0, 2)

    @pytest.mark.parametrize("shape", [(5,), (-1, 5), (-1, -1), (-2, -3), (-1, 0), ()], ids=str)
    def test_what_does_not_fit_is_refused(self, shape):
        with pytest.raises(ShapeError, match=r"\(2, 3\) \(6 elements\) does not fit"):
            ops.reshape(gw.tensor(numbered(2, 3)), shape)


class TestSlice:
    @pytest.mark.parametrize(
        ("start", "size"),
        [
            ((0, 0, 0), (5, 6, 7)),
            ((1, 2, 3), (2, 3, 4)),
            ((4, 5, 6), (1, 1, 1)),
            ((1, 0, 3), (-1, -1, -1)),
            ((0, 6, 0), (2, 0, 3)),
            ((0, 2, 0), (5, 1, 7)),
        ],
    )
    @pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32])
    def test_block(self, start, size, dtype):
        x = numbered(5, 6, 7, dtype=dtype)
        ends = [None if n == -1 else at + n for at, n in zip(start, size, strict=True)]
        expected = x[tuple(map(slice, start, ends))]
        result = ops.slice(on_gpu(x), start, size)
        assert (result.shape, result.dtype) == (expected.shape, str(x.dtype))
        np.testing.assert_array_equal(result.numpy(), expected)

    def test_number(self):
        assert ops.slice(gw.tensor(3.0), (), ()).tolist() == 3.0

    @pytest.mark.parametrize(
        ("start", "size"),
        [((0,), (2,)), ((0, 0), (3, 3)), ((2, 0), (1, 1)), ((-1, 0), (1, 1)), ((0, 0), (-2, 1)),
         ((0, 4), (1, -1))],
    )  # fmt: skip
    def test_what_is_not_inside_is_refused(self, start, size):
        with pytest.raises(ShapeError, match=r"is outside of shape \(2, 3\)"):
            ops.slice(gw.tensor(numbered(2, 3)), start, size)


class TestSliceUpdate:
    @pytest.mark.parametrize(
        ("start", "size"), [((0, 0, 0), (5, 6, 7)), ((1, 2, 3), (2, 3, 4)), ((5, 6, 7), (0, 0, 0))]
    )
    def test_block_is_replaced_in_a_copy(self, start, size):
        x, updates = numbered(5, 6, 7), -1 - numbered(*size)
        expected = x.copy()
        expected[tuple(slice(at, at + n) for at, n in zip(start, size, strict=True))] = updates
        source = gw.tensor(x)
        result = ops.slice_update(source, start, gw.tensor(updates))
        np.testing.assert_array_equal(result.numpy(), expected)
        np.testing.assert_array_equal(source.numpy(), x)

    def test_lists_take_the_type_of_the_tensor(self):
        result = ops.slice_update(gw.tensor([1, 2, 3], "int32"), [1], [9])
        assert (result.tolist(), result.dtype) == ([1, 9, 3], "int32")

    @pytest.mark.parametrize("start", [(0,), (1, 2), (-1, 0)])
    def test_what_is_not_inside_is_refused(self, start):
        with pytest.raises(ShapeError, match=r"updates \(2, 2\) at .* do not fit into \(2, 3\)"):
            ops.slice_update(numbered(2, 3), start, numbered(2, 2))


class TestConcat:
    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
    def test_pieces_of_different_sizes(self, axis):
        pieces = []
        for seed, size in enumerate((1, 4, 0, 3)):
            shape = [2, 3, 5]
            shape[axis] = size
            pieces.append(references.random(*shape, seed=seed))
        result = ops.concat([gw.tensor(piece) for piece in pieces], axis)
        np.testing.assert_array_equal(result.numpy(), np.concatenate(pieces, axis))

    def test_one_tensor_twice(self):
        x = gw.tensor([1, 2], "int32")
        assert ops.concat([x, x, [7]]).tolist() == [1, 2, 1, 2, 7]

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3, 2\) differ beside axis 0"):
            ops.concat([numbered(2, 3), numbered(3, 2)])
        with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3,\)"):
            ops.concat([numbered(2, 3), numbered(3)])
        with pytest.raises(InvalidArgumentError, match="non-empty list"):
            ops.concat([])
        with pytest.raises(InvalidArgumentError, match="non-empty list"):
            ops.concat(gw.tensor([1.0]))
        with pytest.raises(InvalidArgumentError, match=r"no axis 0 in shape \(\)"):
            ops.concat([1.0, 2.0])


class TestTranspose:
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((), None),
            ((5,), None),
            ((3, 5), None),
            ((65, 63), (1, 0)),
            ((2, 3, 4), (2, 0, 1)),
            ((2, 3, 4), (-1, 1, 0)),
            ((2, 1, 3, 2, 1, 3), None),
            ((2, 3, 2, 3, 2, 2), (5, 1, 3, 0, 4, 2)),
            ((2, 3, 1, 1, 1, 1, 1, 2), None),
            ((2, 0, 3), None),
        ],
        ids=str,
    )
    def test_order(self, shape, axes):
        x = numbered(*shape)
        expected = np.transpose(x, axes)
        result = ops.transpose(gw.tensor(x), axes)
        assert result.shape == expected.shape
        np.testing.assert_array_equal(result.numpy(), expected)

    def test_integers_are_copied_bit_by_bit(self):
        x = np.array([[-1, 2**31 - 1], [0x7FC00001, 0x7F800001]], np.int32)  # two of them NaNs
        np.testing.assert_array_equal(ops.transpose(on_gpu(x)).numpy(), x.T)

    @pytest.mark.parametrize("axes", [(0,), (0, 0), (0, 1, 2), (0, 2)])
    def test_incomplete_orders_are_refused(self, axes):
        with pytest.raises(InvalidArgumentError, match=r"shape \(2, 3\)"):
            ops.transpose(numbered(2, 3), axes)


class TestGather:
    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    @pytest.mark.parametrize("picks", [[2, 0, 2, 1], [[0], [2]], 1, [], [[]]], ids=str)
    def test_lines_of_an_axis(self, axis, picks):
        x = references.random(3, 4, 5)
        expected = np.take(x, np.array(picks, int), axis)
        result = ops.gather(gw.tensor(x), picks, axis)
        assert result.shape == expected.shape
        np.testing.assert_array_equal(result.numpy(), expected)

    @pytest.mark.parametrize("dtype", ["int32", "uint32"])
    def test_indices_on_the_gpu(self, dtype):
        x = gw.tensor(numbered(4, 3, dtype=np.int32), "int32")
        result = ops.gather(x, gw.tensor([3, 0], dtype))
        assert (result.tolist(), result.dtype) == ([[9, 10, 11], [0, 1, 2]], "int32")

    @pytest.mark.parametrize("indices", [np.array([1, 0]), np.array([1, 0], np.uint8)])
    def test_numpy_indices(self, indices):
        assert ops.gather(gw.tensor([5.0, 6.0]), indices).tolist() == [6, 5]

    def test_indices_outside_in_a_tensor_give_nan_or_zero(self):
        x = numbered(2, 2) + 1
        outside = gw.tensor([-1, 0, 2, 2**31 - 1], "int32")
        expected = np.full((4, 2), np.nan, np.float32)
        expected[1] = x[0]
        np.testing.assert_array_equal(ops.gather(gw.tensor(x), outside).numpy(), expected)
        whole = gw.tensor(x.astype(np.int32), "int32")
        assert ops.gather(whole, outside).tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]

    @pytest.mark.parametrize("bad", [3, -1, 10**12])
    def test_indices_outside_in_a_list_are_named(self, bad):
        with pytest.raises(InvalidArgumentError, match=rf"index {bad} .* \(3, 2\): use 0 to 2"):
            ops.gather(numbered(3, 2), [[0, 1], [2, bad]])

    def test_other_bad_indices_are_refused(self):
        with pytest.raises(InvalidArgumentError, match=r"index 1\.0 is not an integer"):
            ops.gather(numbered(3, 2), [1.0])
        with pytest.raises(InvalidArgumentError, match="computes with int32/uint32"):
            ops.gather(numbered(3, 2), gw.tensor([1.0]))
        with pytest.raises(ShapeError, match="ragged"):
            ops.gather(numbered(3, 2), [[0, 1], [2]])
        with pytest.raises(InvalidArgumentError, match=r"no axis 2 in shape \(3, 2\)"):
            ops.gather(numbered(3, 2), [0], axis=2)


@pytest.mark.usefixtures("narrow_grid")
def test_more_elements_than_one_row_of_workgroups():
    x = numbered(30, 50)
    np.testing.assert_array_equal(ops.transpose(gw.tensor(x)).numpy(), x.T)
    np.testing.assert_array_equal(ops.gather(gw.tensor(x), [7] * 40).numpy(), x[[7] * 40])
