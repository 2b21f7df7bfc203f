"""Creation of tensors from host values and from browser blobs."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.tensor import FORMATS, Tensor, check_dtype, empty
from gpt2_wgpu.webgpu.defaults import checked_device, default_device
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.waiting import sync


def tensor(
    values: Any, dtype: str = "float32", *, device: Device | None = None, label: str = ""
) -> Tensor:
    """Create a tensor from host values.

    Args:
        values: a number, nested sequences, a NumPy array or any buffer.
        dtype: "float32", "int32", "uint32" or "bool" (values are compared with 0).
        device: default: the default device.
        label: name in messages and profiles.

    Returns:
        The tensor.

    Raises:
        ShapeError: the sequences are ragged.
        InvalidArgumentError: a value cannot be represented in ``dtype``.
    """
    check_dtype(dtype)
    device = checked_device(device) or default_device()
    if isinstance(values, Tensor):
        values = sync(values.data(), "tensor.data()") if values.size else values.tolist()
    if hasattr(values, "__array__"):
        values = values.tolist() if values.ndim == 0 else values
    flat, shape = _flatten_buffer(values, dtype) or _flatten_nested(values, dtype)
    result = empty(device, shape, dtype, label=label)
    if flat.nbytes:
        device.queue.upload(result.storage, 0, flat)
    return result


async def tensor_of_blob(device: Device, blob: Any, begin: int, end: int) -> Tensor:
    """Upload bytes [``begin``, ``end``) of a ``Blob`` as uint32, zero-padded.

    They are not copied to Python's memory.

    Raises:
        OSError: the blob cannot be read (e.g. its file has changed).
    """
    result = empty(device, (-(-(end - begin) // 4),), "uint32")
    try:
        await device.queue.upload_blob(result.storage, blob.slice(begin, end))
    except BaseException:
        result.dispose()
        raise
    return result


def _flatten_buffer(values: Any, dtype: str) -> tuple[memoryview, tuple[int, ...]] | None:
    """Return an object with the buffer protocol and the right element type, without a copy."""
    try:
        view = memoryview(values)
    except TypeError:
        return None
    if view.format != FORMATS[dtype] or not view.c_contiguous or dtype == "bool":
        return None
    return (view.cast("B") if view.nbytes else memoryview(b"")), tuple(view.shape or ())


def _flatten_nested(values: Any, dtype: str) -> tuple[memoryview, tuple[int, ...]]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    shape: list[int] = []
    level = values
    while isinstance(level, list | tuple):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    flat = values if shape else [values]
    for depth in range(1, len(shape)):
        flat = [item for row in flat for item in _row_of(row, shape[depth], shape)]
    try:
        items = array("I", map(_truth, flat)) if dtype == "bool" else array(FORMATS[dtype], flat)
    except (TypeError, OverflowError) as error:
        raise InvalidArgumentError(f"these values are not {dtype}: {error}") from None
    if dtype == "float32" and any(map(math.isinf, items)):
        _check_overflow(items, flat)
    return memoryview(items).cast("B"), tuple(shape)


def _truth(value: Any) -> bool:
    if not isinstance(value, int | float):
        raise TypeError(f"{shown(value)} is not a number")
    return bool(value)


def _check_overflow(items: Any, values: Sequence[Any]) -> None:
    """Reject numbers too large for f32, which Python silently converts to infinity."""
    for item, value in zip(items, values, strict=True):
        if math.isinf(item) and not math.isinf(value):
            raise InvalidArgumentError(f"{shown(value)} does not fit into float32")


def _row_of(row: Any, length: int, shape: Sequence[int]) -> Any:
    if not isinstance(row, list | tuple) or len(row) != length:
        raise ShapeError(
            f"ragged values: expected rows as in shape {tuple(shape)}, got {shown(row)}"
        )
    return row
