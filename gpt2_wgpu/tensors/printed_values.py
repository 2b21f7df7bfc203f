"""Values of a tensor in its ``repr``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

_WHOLE = 64  # elements up to which all are printed
_EDGE = 3  # elements at each end of an axis that are printed of more
_MOST_RANGES = 72  # ranges that are read at most; a tensor of more rows shows no values


def edges(shape: Sequence[int]) -> list[list[int]]:
    """Return the indices along each axis that are printed."""
    if math.prod(shape) <= _WHOLE:
        return [list(range(size)) for size in shape]
    return [
        list(range(size)) if size <= 2 * _EDGE else [*range(_EDGE), *range(size - _EDGE, size)]
        for size in shape
    ]


def runs(shape: Sequence[int]) -> list[tuple[int, int]] | None:
    """Return (first element, count) of the ranges to read; None if they are too many."""
    *outer, last = edges(shape) if shape else [[0]]
    width = shape[-1] if shape else 1
    pieces = [(0, width)] if len(last) == width else [(0, _EDGE), (width - _EDGE, _EDGE)]
    if math.prod(map(len, outer)) * len(pieces) > _MOST_RANGES:
        return None
    found = []
    for place in product(*outer):
        row = 0
        for index, size in zip(place, shape, strict=False):
            row = row * size + index
        found += [(row * width + first, count) for first, count in pieces]
    return found


def printed(shape: Sequence[int], values: Sequence[Any]) -> str:
    """Return the values of :func:`runs` in one line of NumPy's brackets."""
    items = iter(map(_number, values))
    return _nested(shape, edges(shape), lambda: next(items))


def _nested(shape: Sequence[int], kept: list[list[int]], take: Callable[[], str]) -> str:
    if not shape:
        return take()
    items = [_nested(shape[1:], kept[1:], take) for _ in kept[0]]
    if len(kept[0]) < shape[0]:
        items.insert(_EDGE, "...")
    return f"[{' '.join(items)}]"


def _number(value: Any) -> str:
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    text = f"{value:.5g}"
    return text if set(text) & set(".e") else f"{text}."
