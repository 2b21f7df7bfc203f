"""Is there a NaN or an infinity in a tensor? Answered on raw bytes, without numpy.

A float of any of these formats is not finite exactly if its exponent is all ones. In little-endian
order the exponent starts in the last byte, so one table over every last byte finds the rare
candidates at the speed of memory.
"""

from __future__ import annotations

from gpt2_wgpu.errors import InvalidArgumentError

_CHUNK_BYTES = 1 << 20  # bounds the copy of the last bytes, whatever the size of the tensor

# dtype → element size, exponent bits in the last byte, exponent bits in the byte before it
_EXPONENT = {"F32": (4, 0x7F, 0x80), "BF16": (2, 0x7F, 0x80), "F16": (2, 0x7C, 0x00)}
_TABLES = {mask: bytes(byte & mask == mask for byte in range(256)) for mask in (0x7F, 0x7C)}


def first_non_finite(data: memoryview, dtype: str) -> int | None:
    """Return the index of the first element that is NaN or infinite, or None.

    Args:
        data: the tensor's bytes (format ``B``, any alignment).
        dtype: ``F32``, ``F16`` or ``BF16``.

    Raises:
        InvalidArgumentError: the dtype is another one, or the length is no multiple of its size.
    """
    if dtype not in _EXPONENT:
        raise InvalidArgumentError(f"dtype {dtype!r} is not one of {', '.join(_EXPONENT)}")
    size, high_mask, low_mask = _EXPONENT[dtype]
    if len(data) % size:
        raise InvalidArgumentError(f"{len(data)} bytes are no whole number of {dtype} elements")
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        candidates = bytes(chunk[size - 1 :: size]).translate(_TABLES[high_mask])
        index = candidates.find(1)
        while index >= 0:
            if chunk[index * size + size - 2] & low_mask == low_mask:
                return start // size + index
            index = candidates.find(1, index + 1)
    return None
