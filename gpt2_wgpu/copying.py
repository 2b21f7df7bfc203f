"""What ``copy`` and ``pickle`` do with objects that hold memory of a GPU.

A copy of the Python object alone would use memory that it does not own. So each class says what a
copy is, or is one of these.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NoReturn, Self, SupportsIndex

from gpt2_wgpu.errors import CopyError


class NotPicklable:
    """Base of classes whose objects belong to a device of this process."""

    __slots__ = ()

    def __str__(self) -> str:
        """What it is, in words: for messages."""
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
    """Base of classes whose objects own what a copy would free a second time."""

    __slots__ = ()

    def __copy__(self) -> NoReturn:
        raise CopyError(f"{self} cannot be copied: it owns GPU memory; make a new one")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__copy__()


class CopiedByAttributes(NotPicklable):
    """Base of classes that ``copy`` handles as usual; only pickling is refused."""

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied
