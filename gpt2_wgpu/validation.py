"""Validation of arguments: numbers in a range, and configs of constructors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Range of a number: [low, high], or (low, high] with ``open_low``."""

    low: float
    high: float = math.inf
    open_low: bool = False
    whole: bool = False  # integers only

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        low, high = (str(each) if self.whole else f"{each:g}" for each in (self.low, self.high))
        bounds = f"{'>' if self.open_low else '>='} {low}"
        return f"{kind} {bounds}" + ("" if math.isinf(self.high) else f" and <= {high}")

    def find(self, value: Any) -> float | None:
        """Return ``value`` as a float, or an int if ``whole``; None outside the range.

        NumPy's numbers are accepted, booleans and texts are not.
        """
        if isinstance(value, bool | str):
            return None
        try:
            plain: float = int(value.__index__()) if self.whole else float(value.__float__())
        except (AttributeError, TypeError, ValueError, OverflowError):  # an array, 10**400
            return None
        inside = self.low <= plain <= self.high and not (self.open_low and plain == self.low)
        return plain if inside and (self.whole or math.isfinite(plain)) else None

    def check(self, name: str, value: Any) -> float:
        """Return what `find` does; InvalidArgumentError instead of None."""
        if (found := self.find(value)) is None:
            raise InvalidArgumentError(f"{name} must be {self}, not {shown(value)}")
        return found


def number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """Return ``value`` as a float in [low, high], or (low, high] with ``open_low``.

    Raises:
        InvalidArgumentError: ``value`` is not a number (NumPy's are accepted) or out of range.
    """
    return Range(low, high, open_low).check(name, value)


def integer(name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` as an int in [low, high].

    Raises:
        InvalidArgumentError: ``value`` is not an integer (NumPy's are accepted) or out of range.
    """
    return int(Range(low, high, whole=True).check(name, value))


def instance(name: str, value: Any, kind: type) -> None:
    """Raise InvalidArgumentError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0].lower() in "aeio" else "a"
        raise InvalidArgumentError(f"{name} must be {article} {kind.__name__}, not {shown(value)}")


def optional_function(name: str, value: Any) -> None:
    """Raise InvalidArgumentError unless ``value`` is None or can be called."""
    if value is not None and not callable(value):
        raise InvalidArgumentError(f"{name} must be a function, not {shown(value)}")


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


def dtype_of_policy(value: Any) -> Any:
    """Return the name in a serialised ``DTypePolicy`` of Keras, None without one.

    Other values are returned unchanged.
    """
    if not isinstance(value, Mapping):
        return value
    config = value.get("config")
    return config.get("name") if isinstance(config, Mapping) else None
