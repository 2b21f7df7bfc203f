"""Validation of arguments: numbers in a range, and configs of constructors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown

T = TypeVar("T")


def number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """Return ``value`` as a float in [low, high], or (low, high] with ``open_low``.

    Raises:
        InvalidArgumentError: ``value`` is not a number (NumPy's are accepted) or out of range.
    """
    bounds = f"{'above' if open_low else 'at least'} {low:g}"
    bounds += "" if math.isinf(high) else f" and at most {high:g}"
    real = hasattr(value, "__float__") and not isinstance(value, bool | str)
    try:
        plain = float(value) if real else math.nan
    except (TypeError, ValueError, OverflowError):  # an array, or an int too large for a float
        plain = math.nan
    if not math.isfinite(plain):
        raise InvalidArgumentError(f"{name} must be a finite number {bounds}, not {shown(value)}")
    if plain > high or plain < low or (open_low and plain == low):
        raise InvalidArgumentError(f"{name} must be {bounds}, not {shown(value)}")
    return plain


def integer(name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` as an int in [low, high].

    Raises:
        InvalidArgumentError: ``value`` is not an integer (NumPy's are accepted) or out of range.
    """
    try:
        whole = None if isinstance(value, bool) else value.__index__()
    except (AttributeError, TypeError):  # TypeError: an array of several items
        whole = None
    if whole is None or not low <= whole <= high:
        raise InvalidArgumentError(
            f"{name} must be a whole number from {low} to {high}, not {shown(value)}"
        )
    return int(whole)


def made_from(kind: type[T], config: Any) -> T:
    """Return ``kind(**config)``.

    Raises:
        InvalidArgumentError: ``config`` is not a mapping of arguments of ``kind``.
    """
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"the config of {kind.__name__} must be a dict of its arguments, not {shown(config)}"
        )
    try:
        return kind(**config)
    except TypeError as error:  # an unknown argument, or a key that is not a str
        raise InvalidArgumentError(
            f"{kind.__name__} cannot be made of the config {shown(config)}: {error}"
        ) from None
