"""Operators of tensors: ``+ - * / @``, unary ``-``, ``< <= > >=``, ``& | ~`` and ``[...]``.

They call functions of ``ops``, which imports tensors and so registers them here (ops/__init__.py).
"""

# mypy: disable-error-code="no-any-return"
# (the registered functions have no type here: their types derive from this class)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Self

from gpt2_wgpu.errors import InvalidArgumentError

_functions: dict[str, Callable[..., Any]] = {}


def set_operators(**functions: Callable[..., Any]) -> None:
    """Register the functions of the operators, by their names in ``ops``."""
    _functions.update(functions)


class Operators:
    """Base of ``Tensor``: the operators. Results are tensors of the same device."""

    __slots__ = ()

    __array_ufunc__ = None  # `array + tensor` comes to __radd__ instead of NumPy

    def __add__(self, other: Any) -> Self:
        return _functions["add"](self, other)

    def __radd__(self, other: Any) -> Self:
        return _functions["add"](other, self)

    def __sub__(self, other: Any) -> Self:
        return _functions["sub"](self, other)

    def __rsub__(self, other: Any) -> Self:
        return _functions["sub"](other, self)

    def __mul__(self, other: Any) -> Self:
        return _functions["mul"](self, other)

    def __rmul__(self, other: Any) -> Self:
        return _functions["mul"](other, self)

    def __truediv__(self, other: Any) -> Self:
        return _functions["div"](self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return _functions["div"](other, self)

    def __matmul__(self, other: Any) -> Self:
        return _functions["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return _functions["matmul"](other, self)

    def __neg__(self) -> Self:
        return _functions["mul"](self, -1)

    # `==` stays identity, so that tensors can be found in lists and dictionaries: ops.equal.

    def __lt__(self, other: Any) -> Self:
        return _functions["less"](self, other)

    def __le__(self, other: Any) -> Self:
        return _functions["less_equal"](self, other)

    def __gt__(self, other: Any) -> Self:
        return _functions["greater"](self, other)

    def __ge__(self, other: Any) -> Self:
        return _functions["greater_equal"](self, other)

    def __and__(self, other: Any) -> Self:
        return _functions["logical_and"](self, other)

    def __rand__(self, other: Any) -> Self:
        return _functions["logical_and"](other, self)

    def __or__(self, other: Any) -> Self:
        return _functions["logical_or"](self, other)

    def __ror__(self, other: Any) -> Self:
        return _functions["logical_or"](other, self)

    def __invert__(self) -> Self:
        return _functions["logical_not"](self)

    @property
    def T(self) -> Self:  # noqa: N802  (NumPy's name)
        """Copy with the axes in reverse order."""
        return _functions["transpose"](self)

    # With __getitem__ alone, Python would iterate by reading element after element.
    __iter__ = __contains__ = None

    def __getitem__(self, key: Any) -> Self:
        """The elements that integers, slices, ``...`` and None select, as a new tensor."""
        return _functions["get_item"](self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise InvalidArgumentError(
            "elements of a tensor cannot be assigned: make a new tensor with "
            "gw.ops.slice_update(x, start, updates) or gw.ops.where(condition, a, b)"
        )
