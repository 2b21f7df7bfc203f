"""JSON from files that nobody vouches for: what Python's ``json`` lets through is refused here.

Python accepts ``NaN``, repeated keys (the last one wins in silence), lone surrogates (a string
that cannot be printed) and ``-0`` as an integer; a deep nest raises ``RecursionError`` and a
number of 5,000 digits a ``ValueError`` about a setting nobody has heard of.
"""

from __future__ import annotations

import json
from typing import NoReturn

from gpt2_wgpu import misplaced_files

_MAX_DIGITS = 64  # no size or offset comes near; far below CPython's own limit for int()


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
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from None


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
