"""Safetensors files built byte by byte, so that tests can violate any rule."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

Entries = dict[str, tuple[str, list[int], bytes]]


def raw_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with exactly this header; ``length``: a wrong length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def json_file(header: Any, data: bytes = b"") -> bytes:
    """A file whose header is this value as JSON."""
    return raw_file(json.dumps(header).encode(), data)


def tensor(begin: int, end: int, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    """One entry of a header."""
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def valid_file(entries: Entries, metadata: dict[str, str] | None = None, padding: int = 0) -> bytes:
    """A correct file: name → (dtype, shape, bytes); ``padding`` spaces after the header."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = tensor(len(data), len(data) + len(content), shape, dtype)
        data += content
    return raw_file(json.dumps(header).encode() + b" " * padding, data)


def zeros(shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> Entries:
    """Entries full of zeros with these shapes."""
    size = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F64": 8}[dtype]
    result: Entries = {}
    for name, shape in shapes.items():
        count = 1
        for dimension in shape:
            count *= dimension
        result[name] = (dtype, list(shape), bytes(size * count))
    return result


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path
