"""Strict JSON parser for untrusted files.

Python's ``json`` accepts ``NaN``, repeated keys (the last one wins), lone surrogates (a string that
cannot be printed) and ``-0`` as an integer. A number of 5,000 digits raises a ``ValueError`` about
an interpreter setting; deep nesting raises ``RecursionError``, or in a browser, whose stack is
smaller than Python assumes, ends the interpreter.

Time is linear in the size of the text; memory is bounded by the limit on the number of values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import NoReturn

from gpt2_wgpu import file_signatures
from gpt2_wgpu.shown import shown

MAX_VALUES = 4_000_000  # a tokenizer.json of 50,000 tokens and merges has 250,000
_MAX_DIGITS = 64  # far more than any size or offset; far below CPython's limit for int()
_MAX_DEPTH = 64  # far more than any checkpoint's file; a browser's stack allows about 1,000
_CHUNK = 1 << 16
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},:"))
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(data: bytes | memoryview) -> object:
    """Parse UTF-8 JSON and return plain Python values.

    Raises:
        ValueError: the bytes are another type of file (a Git LFS pointer, a web page, an empty
            file), not UTF-8, not JSON, nested too deeply, of more than `MAX_VALUES` values, or
            contain a repeated key, ``NaN``/``Infinity``, a lone surrogate or an integer of more
            than 64 digits. The message is a phrase that fits after "the header is not valid: ".
    """
    if fault := file_signatures.fault(data, "JSON"):
        raise ValueError(fault)
    _check_structure(data)
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from None
    if _SURROGATE.search(text):  # in UTF-8 only an escape can encode a lone surrogate
        for string in _strings(value):
            _reject_lone_surrogate(string)
    return value


def _check_structure(data: bytes | memoryview) -> None:
    """Check depth and number of values before they are parsed."""
    depth = deepest = values = 0
    for structure in _structure(data):
        values += structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        brackets = structure.translate(None, b",:")
        depths = accumulate((1 if byte in b"[{" else -1 for byte in brackets), initial=depth)
        for depth in depths:
            deepest = max(deepest, depth)
        if deepest > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")


def _structure(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield the brackets and separators outside of strings, in chunks."""
    in_string = False
    begin = 0
    while begin < len(data):
        end = begin + _CHUNK
        chunk = bytes(data[begin:end])
        while (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and end < len(data):
            chunk += bytes(data[end : end + 1])  # do not split an escape
            end += 1
        begin = end
        pieces = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string ^= len(pieces) % 2 == 0
        yield outside.translate(None, _NOT_STRUCTURE)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {shown(key)} appears twice")
            seen.add(key)
    return result


def _strings(value: object) -> Iterator[str]:
    """Yield every key and string of a value of depth `_MAX_DEPTH` or less."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _reject_lone_surrogate(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"lone surrogate in string {shown(text)}") from None


def _integer(digits: str) -> int | float:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"integer of {len(digits)} digits")
    # Other parsers read -0 as a float; as a float it fails every check for an integer.
    return -0.0 if digits == "-0" else int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
