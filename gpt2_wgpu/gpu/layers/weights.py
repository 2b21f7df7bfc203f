"""Weights: a checkpoint's numbers, converted on the GPU into the layout the kernels read.

Matrices are stored [outputs, inputs] with rows padded to a multiple of eight elements, as f32 or
as f16 packed two in a word, in parts that each fit into one storage binding.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import InvalidArgumentError, LimitError, ShapeError
from gpt2_wgpu.gpu.commands import Part, dispatch
from gpt2_wgpu.gpu.ops.grids import groups_for
from gpt2_wgpu.gpu.tensor import ITEM_BYTES, Tensor, empty

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device

SOURCE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # safetensors' names
PACKED = {"float32": "f32", "float16": "f16"}
STAGED_BYTES = 32 << 20  # uploaded at once: bounds what the driver copies on the host


@dataclass(frozen=True)
class Raw:
    """A tensor as a checkpoint stores it, row-major: its bytes, or a function that brings elements
    ``begin`` .. ``end`` to the GPU as words, waiting for a disk, a network or nothing."""

    data: memoryview | Callable[[int, int], Awaitable[Tensor]]
    dtype: str  # "F32", "F16", "BF16"
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """How an axis is padded: groups of ``group`` elements become ``padded`` long."""

    size: int
    group: int
    padded: int

    @classmethod
    def plain(cls, size: int) -> Axis:
        return cls(size, size, size)

    @property
    def length(self) -> int:
        return self.size // self.group * self.padded


@dataclass(frozen=True)
class Matrix:
    """W [rows, depth]: tensors of consecutive rows, each with the index of its first row."""

    parts: tuple[tuple[int, Tensor], ...]
    rows: int
    depth: int  # a multiple of 8
    dtype: str

    @property
    def variant(self) -> str:
        return PACKED[self.dtype]


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


async def load_matrix(
    device: Device,
    raw: Raw,
    dtype: str,
    *,
    transpose: bool = False,
    outputs: Axis | None = None,
    inputs: Axis | None = None,
) -> Matrix:
    """Upload and convert ``raw`` [N, K] ([K, N] with ``transpose``) → W [N, K padded to 8].

    ``outputs`` and ``inputs`` say how N and K are padded (default: not in groups). Padding is zero.
    """
    if dtype not in PACKED:
        raise InvalidArgumentError(f"weights are stored as {tuple(PACKED)}, not {dtype!r}")
    if len(raw.shape) != 2:
        raise ShapeError(f"a matrix has two axes, not shape {raw.shape}")
    n, k = reversed(raw.shape) if transpose else raw.shape
    outputs, inputs = outputs or Axis.plain(n), inputs or Axis.plain(k)
    if (outputs.size, inputs.size) != (n, k):
        raise ShapeError(f"axes of {outputs.size} x {inputs.size} for a matrix {n} x {k}")
    depth = round_up(inputs.length, 8)
    line = depth * ITEM_BYTES[dtype]
    most = device.capabilities.max_binding // line
    if most == 0:
        raise LimitError(f"one row of {line:,} bytes exceeds this device's binding limit")
    parts = []
    for first in range(0, outputs.length, most):
        lines = min(most, outputs.length - first)
        part = empty(device, (lines, depth), dtype, kind="weights")
        await _fill(device, raw, part, first, transpose, outputs, inputs)
        parts.append((first, part))
    return Matrix(tuple(parts), outputs.length, depth, dtype)


async def load_vector(
    device: Device, raw: Raw, *, axis: Axis | None = None, length: int = 0
) -> Tensor:
    """Upload and convert ``raw`` [N] → f32 [N padded], at least ``length`` long, zeros beyond."""
    if len(raw.shape) != 1:
        raise ShapeError(f"a vector has one axis, not shape {raw.shape}")
    axis = axis or Axis.plain(raw.shape[0])
    padded = round_up(max(axis.length, length), 2)
    result = empty(device, (1, padded), kind="weights")
    row = Raw(raw.data, raw.dtype, (1, *raw.shape))
    await _fill(device, row, result, 0, False, Axis.plain(1), axis)
    vector = result.view((padded,))
    result.dispose()
    return vector


async def _fill(
    device: Device,
    raw: Raw,
    result: Tensor,
    first: int,
    transpose: bool,
    outputs: Axis,
    inputs: Axis,
) -> None:
    """Convert lines ``first`` .. of the matrix into ``result``, uploading a piece at a time.

    A transposed matrix is uploaded whole, since each output line needs all of it.
    """
    lines, depth = result.shape
    width = raw.shape[1]
    whole = transpose or outputs.group != outputs.padded
    fitting = STAGED_BYTES // (width * SOURCE_BYTES[raw.dtype])
    piece = lines if whole else max(16, fitting // 16 * 16)
    line_bytes = depth * ITEM_BYTES[result.dtype]
    for begin in range(0, lines, piece):
        count = min(piece, lines - begin)
        skipped = 0 if whole else (first + begin) * width
        end = raw.shape[0] * width if whole else skipped + count * width
        words = await _upload(device, raw, skipped, end)
        dispatch(
            device,
            "load_weight",
            groups_for(count * depth // 2, 64),
            {
                "raw": words,
                # 16 lines of at least 16 bytes: the offset is a multiple of 256
                "result": Part(result, begin * line_bytes, count * line_bytes),
            },
            {
                "lines": count,
                "pairs": depth // 2,
                "first": first + begin,
                "group_n": outputs.group,
                "padded_n": outputs.padded,
                "size_n": outputs.size,
                "stride_n": 1 if transpose else width,
                "group_k": inputs.group,
                "padded_k": inputs.padded,
                "size_k": inputs.size,
                "stride_k": width if transpose else 1,
                "skipped": skipped,
            },
            variant={"source": raw.dtype.lower(), "packed": PACKED[result.dtype]},
        )
        words.dispose()


async def _upload(device: Device, raw: Raw, begin: int, end: int) -> Tensor:
    """Elements ``begin`` .. ``end`` of ``raw`` as words on the GPU."""
    if callable(raw.data):
        return await raw.data(begin, end)
    item = SOURCE_BYTES[raw.dtype]
    data = raw.data[begin * item : end * item]
    words = empty(device, (-(-len(data) // 4),), "uint32")
    device.queue.upload(words.storage, 0, data)
    return words


def random_normal(
    device: Device, count: int, stddev: float, seed: int, stream: int = 0, first: int = 0
) -> Tensor:
    """Values ``first`` .. of an endless series of N(0, stddev²), as f32 [count].

    ``stream`` tells the series of one seed apart. Equal on every adapter up to rounding.
    """
    result = empty(device, (count,))
    dispatch(
        device,
        "random_normal",
        groups_for(count, 64),
        {"result": result},
        {"count": count, "first": first, "seed": seed, "stream": stream, "stddev": stddev},
    )
    return result
