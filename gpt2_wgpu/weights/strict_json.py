"""JSON from files that nobody vouches for: what Python's ``json`` lets through is refused here.

Python accepts ``NaN``, repeated keys (the last one wins in silence), lone surrogates (a string
that cannot be printed) and ``-0`` as an integer; a number of 5,000 digits raises a ``ValueError``
about a setting nobody has heard of, and a deep nest ``RecursionError``, or in a browser, whose
stack is smaller than Python believes, the end of the whole interpreter.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import NoReturn

from gpt2_wgpu import misplaced_files

_MAX_DIGITS = 64  # no size or offset comes near; far below CPython's own limit for int()
_MAX_DEPTH = 64  # no checkpoint's file comes near; a browser's stack ends somewhere above 1,000
# Whole strings (one that never ends: up to the end of the text), and all else but brackets.
_BETWEEN_BRACKETS = re.compile(r'(?:"[^"\\]*(?:\\.[^"\\]*)*"?|[^"\[\]{}])+', re.DOTALL)


def parse(data: bytes | memoryview) -> object:
    """Parse UTF-8 JSON and return plain Python values.

    Raises:
        ValueError: the bytes are another kind of file (a Git LFS pointer, a web page, none at
            all), not UTF-8, not JSON, nested too deeply, or hold a repeated key,
            ``NaN``/``Infinity``, a lone surrogate or an integer of more than 64 digits. The
            message is a phrase that fits after "the header is not valid: ".
    """
    if fault := misplaced_files.fault(data, "JSON"):
        raise ValueError(fault)
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if _depth(text) > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from None


def _depth(text: str) -> int:
    brackets = _BETWEEN_BRACKETS.sub("", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        _refuse_lone_surrogate(key)
        if isinstance(value, str):
            _refuse_lone_surrogate(value)
        if key in result:
            raise ValueError(f"key {key[:80]!r} appears twice")
        result[key] = value
    return result


def _refuse_lone_surrogate(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"lone surrogate in string {text[:80]!r}") from None


def _integer(digits: str) -> int | float:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"integer of {len(digits)} digits")
    # Other readers take -0 for a float; as a float it fails every check for an integer here too.
    return -0.0 if digits == "-0" else int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
