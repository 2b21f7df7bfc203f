"""Short representations of values for error messages."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

_LIMIT = 120  # characters
_KINDS = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 4, 4, 4
        self.maxset = self.maxfrozenset = self.maxarray = self.maxdeque = 4
        self.maxstring = self.maxother = _LIMIT - 2
        self.maxlong = 40

    def repr1(self, x: Any, level: int) -> str:
        # Repr dispatches on the name of the type, so it would format all of a subclass's value.
        if isinstance(x, bool):
            return repr(bool(x))
        for kind in _KINDS:
            if isinstance(x, kind):
                return str(getattr(self, f"repr_{kind.__name__}")(x, level))
        return super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        # Python raises for an integer of more than 4,300 digits.
        return (
            super().repr_int(x, level) if x.bit_length() < 1024 else f"<{x.bit_length()}-bit int>"
        )

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= 40 else f"{x[:40]!r}..."

    repr_bytearray = repr_bytes

    def repr_Tensor(self, x: Any, level: int) -> str:  # noqa: N802  (reprlib's form)
        # Its repr has values, which a message need not read from the GPU.
        return f"<{type(x).__name__} {list(x.shape)} {x.dtype}>"


_short = _Short()


def shown(value: object) -> str:
    """Return the ``repr`` of ``value``, at most 120 characters; the rest is not even formatted."""
    text = _short.repr(value).replace("\n", " ")
    return text if len(text) <= _LIMIT else f"{text[: _LIMIT - 3]}..."


def escaped(text: str) -> str:
    """Return ``text`` with its control characters as in JSON, so that a terminal obeys none."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def odd_item(items: Sequence[object], good: Callable[[object], bool]) -> str | None:
    """Describe the first item that is not good: "item 3 of 10 is nan"; None if all are."""
    for index, item in enumerate(items):
        if not good(item):
            return f"item {index} of {len(items)} is {shown(item)}"
    return None


def listed(items: list[str], most: int = 5) -> str:
    """Join the first ``most`` of ``items``, shortened, and the number of the others."""
    short = [item if len(item) <= _LIMIT else f"{item[: _LIMIT - 3]}..." for item in items[:most]]
    more = f", ... ({len(items) - most} more)" if len(items) > most else ""
    return ", ".join(short) + more
