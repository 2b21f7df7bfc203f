"""Conversion of token ids and masks between arrays of any library and Python lists.

Users pass token ids as NumPy arrays, tensors of other libraries, or nested lists. The engine uses
lists, because Pyodide has no NumPy; NumPy is imported only to return an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown

T = TypeVar("T")
_ONE_ROW = {"cache_update_index", "stop_token_ids"}  # arguments that have no batch


def rows_of_ids(
    x: Any, vocabulary_size: int | None = None, name: str = "token_ids", ragged: bool = True
) -> list[list[int]]:
    """Return token ids as rows of Python integers.

    Args:
        x: ids of shape [T] or [B, T]: nested lists or tuples, or an object with ``tolist()``. [T]
            gives one row (see ``is_one_row``).
        vocabulary_size: if given, ids must be in ``[0, vocabulary_size)``.
        name: name of the argument in error messages.
        ragged: whether rows may differ in length.

    Raises:
        InvalidArgumentError: an entry is not an integer (bools and floats are rejected) or is
            outside the vocabulary; the message has the entry, its row and its position.
        ShapeError: neither [T] nor [B, T], or rows of different lengths without ``ragged``.
    """
    rows = _rows(x, name, int, _as_id)
    if vocabulary_size is not None:
        _check_range(rows, vocabulary_size, name)
    if not ragged:
        _check_rectangular(rows, name)
    return rows


def rows_of_mask(x: Any, name: str = "padding_mask", ragged: bool = True) -> list[list[bool]]:
    """Return a mask of shape [T] or [B, T] as rows of bools; entries are bools, 0 or 1.

    Raises:
        InvalidArgumentError: an entry is neither a bool nor 0 or 1.
        ShapeError: neither [T] nor [B, T], or rows of different lengths without ``ragged``.
    """
    rows = _rows(x, name, bool, _as_flag)
    if not ragged:
        _check_rectangular(rows, name)
    return rows


def is_one_row(x: Any) -> bool:
    """Return whether ``x`` is one row, [T], and not a batch, [B, T]; an empty list is one row."""
    if hasattr(x, "ndim"):  # distinguishes [0, T] from [0], which lists cannot
        return bool(x.ndim == 1)
    values = _plain(x)
    return not (_is_sequence(values) and len(values) > 0 and _is_sequence(_plain(values[0])))


def as_array(rows: Sequence[Any], dtype: Literal["int32", "bool", "float32"]) -> Any:
    """Return one row, or rows of equal length, as a NumPy array; as lists without NumPy.

    The only function that chooses between the two.
    """
    try:
        import numpy as np
    except ImportError:
        return [list(row) if _is_sequence(row) else row for row in rows]
    return np.array(rows, dtype=dtype)


def _rows(
    x: Any, name: str, wanted: type[T], convert: Callable[[Any, str, int, int], T]
) -> list[list[T]]:
    values = _plain(x)
    if not _is_sequence(values):
        shape = "be a list of ids" if name in _ONE_ROW else "have shape [T] or [B, T]"
        kind = type(x).__name__
        article = "an" if kind[0].lower() in "aeiou" else "a"
        raise ShapeError(f"{name} must {shape}, but is {article} {kind}: {shown(x)}")
    batch = [values] if is_one_row(x) else [_plain(row) for row in values]
    rows = []
    for index, row in enumerate(batch):
        if not _is_sequence(row):
            raise ShapeError(f"{name} mixes rows and single values: row {index} is {shown(row)}")
        if set(map(type, row)) <= {wanted}:
            rows.append(list(row))  # nothing to convert: no call for each entry
        else:
            rows.append([convert(entry, name, index, at) for at, entry in enumerate(row)])
    return rows


def _as_id(entry: Any, name: str, row: int, position: int) -> int:
    value = entry if type(entry) is int else _plain(entry)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_entry(value, f"{name} must hold integers", row, position)
    return value


def _as_flag(entry: Any, name: str, row: int, position: int) -> bool:
    value = _plain(entry)
    if not isinstance(value, int) or value not in (0, 1):
        raise _wrong_entry(value, f"{name} must hold bools (or 0 and 1)", row, position)
    return bool(value)


def _wrong_entry(value: object, rule: str, row: int, position: int) -> InvalidArgumentError:
    if _is_sequence(value):
        return ShapeError(
            f"{rule} in shape [T] or [B, T], but row {row}, position {position} nests"
        )
    return InvalidArgumentError(
        f"{rule}, but row {row}, position {position} is {shown(value)} ({type(value).__name__})"
    )


def _check_range(rows: list[list[int]], vocabulary_size: int, name: str) -> None:
    for index, row in enumerate(rows):
        if row and not (min(row) >= 0 and max(row) < vocabulary_size):
            at = next(at for at, entry in enumerate(row) if not 0 <= entry < vocabulary_size)
            raise InvalidArgumentError(
                f"{name} holds {row[at]} at row {index}, position {at}, but ids must be in "
                f"[0, {vocabulary_size})"
            )


def _check_rectangular(rows: Sequence[Sequence[object]], name: str) -> None:
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise ShapeError(f"{name} must have rows of equal length, but they have lengths {lengths}")


def _plain(x: Any) -> Any:
    """Convert arrays, tensors and their scalars to (nested lists of) Python values."""
    tolist = getattr(x, "tolist", None)
    return x if tolist is None else tolist()


def _is_sequence(x: object) -> bool:
    return isinstance(x, (list, tuple, range))
