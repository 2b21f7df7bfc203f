"""Base classes that define ``copy`` and ``pickle`` for objects that own GPU memory.

A default copy would use memory that it does not own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NoReturn, Self, SupportsIndex

from gpt2_wgpu.errors import CopyError


class NotPicklable:
    """Base class of objects of a GPU device, which cannot be pickled."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return a description for messages."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self}>"

    _instead_of_pickling = "make a new one in the other process"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise CopyError(
            f"{self} cannot be pickled: it belongs to a GPU device of this process; "
            f"{self._instead_of_pickling}"
        )


class NotCopyable(NotPicklable):
    """Base class of objects that own GPU memory, which cannot be copied."""

    __slots__ = ()

    def __copy__(self) -> NoReturn:
        raise CopyError(f"{self} cannot be copied: it owns GPU memory; make a new one")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__copy__()


class CopiedByAttributes(NotPicklable):
    """Base class of objects that are copied by attributes, but cannot be pickled."""

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied
