"""Shapes, strides and axes against NumPy; no device."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.tensors.ops import strides

pytestmark = pytest.mark.native("NumPy")

shapes = st.lists(st.integers(0, 3), max_size=5).map(tuple)


@settings(deadline=None)
@given(shapes, shapes)
def test_broadcast_is_numpys(a, b):
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError) as raised:
            strides.broadcast("add", a, b)
        assert str(a) in str(raised.value) and str(b) in str(raised.value)
    else:
        assert strides.broadcast("add", a, b) == expected


@settings(deadline=None)
@given(shapes)
def test_row_major_is_numpys(shape):
    array = np.empty(shape, np.int8)
    if array.size:
        assert strides.row_major(shape) == list(array.strides)


def places(shape, strides):
    """The place of every element, in row-major order."""
    grid = np.indices(shape).reshape(len(shape), math.prod(shape))
    return (np.array(strides, int).reshape(-1, 1) * grid).sum(0)


@settings(deadline=None)
@given(st.data())
def test_merged_axes_visit_the_same_places(data):
    shape = data.draw(st.lists(st.integers(1, 3), max_size=6).map(tuple))
    order = data.draw(st.permutations(range(len(shape))))
    moved = [strides.row_major(shape)[axis] for axis in order]
    shape = tuple(shape[axis] for axis in order)
    repeated = strides.broadcast_strides(shape[len(shape) // 2 :], shape)
    sizes, first, second = strides.merge_axes("copy", shape, moved, repeated)
    assert len(sizes) == len(first) == len(second) == strides.KERNEL_AXES
    np.testing.assert_array_equal(places(sizes, first), places(shape, moved))
    np.testing.assert_array_equal(places(sizes, second), places(shape, repeated))


def test_contiguous_axes_become_one():
    shape = (2, 3, 1, 4, 5, 6, 7)
    assert strides.merge_axes("copy", shape, strides.row_major(shape)) == [
        [1, 1, 1, 1, 1, 5040],
        [0, 0, 0, 0, 0, 1],
    ]


def test_more_than_six_axes_are_refused():
    shape = (2,) * 7
    with pytest.raises(ShapeError, match="more than 6 axes"):
        strides.merge_axes("transpose", shape, strides.row_major(shape)[::-1])


@pytest.mark.parametrize("axis", [3, -4, 99])
def test_absent_axes_are_refused(axis):
    with pytest.raises(InvalidArgumentError, match=f"no axis {axis} in shape"):
        strides.axis_of("softmax", axis, (1, 2, 3))


@pytest.mark.parametrize("values", [3, [1.5], ["a"], None])
def test_what_is_no_sequence_of_integers_is_refused(values):
    with pytest.raises(InvalidArgumentError, match="start must be a sequence of integers"):
        strides.integers("slice", "start", values)
