"""Checks of plain values that a caller passed: numbers in a range, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown

T = TypeVar("T")


def number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """``value`` as a float in [low, high] ((low, high] with ``open_low``), or an error.

    NumPy's numbers are welcome.
    """
    bounds = f"{'above' if open_low else 'at least'} {low:g}"
    bounds += "" if math.isinf(high) else f" and at most {high:g}"
    real = hasattr(value, "__float__") and not isinstance(value, bool | str)
    try:
        plain = float(value) if real else math.nan
    except (TypeError, ValueError, OverflowError):  # an array, an int that no float holds
        plain = math.nan
    if not math.isfinite(plain):
        raise InvalidArgumentError(f"{name} must be a finite number {bounds}, not {shown(value)}")
    if plain > high or plain < low or (open_low and plain == low):
        raise InvalidArgumentError(f"{name} must be {bounds}, not {shown(value)}")
    return plain


def integer(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int in [low, high], or an error; NumPy's integers are welcome."""
    try:
        whole = None if isinstance(value, bool) else value.__index__()
    except (AttributeError, TypeError):  # an array of several is a TypeError
        whole = None
    if whole is None or not low <= whole <= high:
        raise InvalidArgumentError(
            f"{name} must be a whole number from {low} to {high}, not {shown(value)}"
        )
    return int(whole)


def made_from(kind: type[T], config: Any) -> T:
    """``kind(**config)``, or an error if ``config`` is no mapping of its arguments."""
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"the config of {kind.__name__} must be a dict of its arguments, not {shown(config)}"
        )
    try:
        return kind(**config)
    except TypeError as error:  # an argument that it does not take, or a key that is no str
        raise InvalidArgumentError(
            f"{kind.__name__} cannot be made of the config {shown(config)}: {error}"
        ) from None
