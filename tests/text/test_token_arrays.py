"""Conversion of arrays of any library to lists of integers."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
import pytest

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids, rows_of_mask


@pytest.mark.parametrize(
    ("x", "rows", "one"),
    [
        ([1, 2], [[1, 2]], True),
        ((1, 2), [[1, 2]], True),
        (range(3), [[0, 1, 2]], True),
        (array("i", [4, 5]), [[4, 5]], True),
        (np.array([1, 2], dtype=np.uint8), [[1, 2]], True),
        ([np.int64(1), np.array(2)], [[1, 2]], True),
        ([], [[]], True),
        ([[]], [[]], False),
        ([[1, 2], (3,)], [[1, 2], [3]], False),
        (np.array([[1], [2]]), [[1], [2]], False),
        (np.zeros((0, 3), dtype=np.int32), [], False),
        (np.zeros(0, dtype=np.int32), [[]], True),
        ([np.array([1, 2]), np.array([3])], [[1, 2], [3]], False),
    ],
)
def test_ids_of_any_kind(x: Any, rows: list[list[int]], one: bool) -> None:
    found = rows_of_ids(x)
    assert found == rows
    assert all(type(entry) is int for row in found for entry in row)
    assert is_one_row(x) is one


@pytest.mark.parametrize(
    "bad",
    [[True], [[1], [False]], [1.0], np.ones(2), np.array([True]), [np.bool_(1)], ["1"], [None],
     [np.float32(1)], np.array(["a"])],
)  # fmt: skip
def test_entries_that_are_no_integers(bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"prompt must hold integers, but row \d"):
        rows_of_ids(bad, name="prompt")


@pytest.mark.parametrize("bad", [5, "abc", b"abc", None, {1: 2}, np.int64(3), [[1], 2], [[[1]]]])
def test_shapes_that_are_not_rows(bad: Any) -> None:
    with pytest.raises(ShapeError):
        rows_of_ids(bad)


@pytest.mark.parametrize(
    ("bad", "name", "message"),
    [
        (5, "prompt", "prompt must have shape [T] or [B, T], but is an int: 5"),
        ("abc", "prompt", "prompt must have shape [T] or [B, T], but is a str: 'abc'"),
        (5, "stop_token_ids", "stop_token_ids must be a list of ids, but is an int: 5"),
    ],
)
def test_what_is_wanted_instead(bad: Any, name: str, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        rows_of_ids(bad, name=name)
    assert str(caught.value) == message


@pytest.mark.parametrize(("bad", "where"), [(10, "row 1, position 2"), (-1, "row 1, position 2")])
def test_ids_outside_the_vocabulary(bad: int, where: str) -> None:
    assert rows_of_ids([[0, 9], []], vocabulary_size=10) == [[0, 9], []]
    with pytest.raises(InvalidArgumentError, match=rf"holds {bad} at {where}.*\[0, 10\)"):
        rows_of_ids([[0], [1, 2, bad]], vocabulary_size=10)


def test_ragged_rows_where_not_allowed() -> None:
    with pytest.raises(ShapeError, match=r"\[2, 1\]"):
        rows_of_ids([[1, 2], [3]], ragged=False)
    with pytest.raises(ShapeError, match=r"\[2, 1\]"):
        rows_of_mask([[1, 0], [1]], ragged=False)
    assert rows_of_ids([[1, 2], [3, 4]], ragged=False) == [[1, 2], [3, 4]]


def test_masks() -> None:
    for mask in ([1, 0, True], np.array([1, 0, 1]), np.array([True, False, True])):
        found = rows_of_mask(mask)
        assert found == [[True, False, True]]
        assert all(type(entry) is bool for entry in found[0])
    for bad in ([2], [-1], [1.0], ["x"], [None]):
        with pytest.raises(InvalidArgumentError, match="padding_mask must hold bools"):
            rows_of_mask(bad)


def test_arrays_are_numpys_where_numpy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = as_array([[1, 2], [3, 4]], "int32"), as_array([True], "bool")
    assert isinstance(ids, np.ndarray) and ids.dtype == np.int32 and ids.shape == (2, 2)
    assert isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (1,)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert as_array([(1, 2), [3, 4]], "int32") == [[1, 2], [3, 4]]
    assert as_array([True], "bool") == [True]
