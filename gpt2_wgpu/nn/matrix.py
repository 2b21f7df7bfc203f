"""Weight matrices and vectors: checkpoint tensors converted on the GPU to the kernels' layout.

Matrices are stored [out_features, in_features] with rows padded to a multiple of eight elements, in
parts that each fit into one storage binding: as f32, as f16 packed in pairs, or rounded in blocks
of 32 that share a scale (q8, q4: shaders/quantize_weight.wgsl). Blocks run through the whole
matrix, row after row, so that no in_features needs more padding; eight of them are a unit of 256
elements, their scales first. Parts begin with a unit, so that parting a matrix changes no bits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import w8a8
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import UNITS, Tensor, bytes_of, empty
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.weight_formats import QUANTIZED, WEIGHT_FORMATS, check_weight_format

SOURCE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}  # safetensors' names
UNIT = 256  # elements per storage unit of a quantised matrix
STEP = 32  # rows that are a whole number of units, for any in_features (a multiple of 8)
STAGED_BYTES = 32 << 20  # uploaded at once, to bound the driver's copies on the host


@dataclass(frozen=True)
class Raw:
    """Row-major tensor of a checkpoint.

    ``data``: its bytes, or an async function that uploads elements [begin, end) as uint32.
    """

    data: memoryview | Callable[[int, int], Awaitable[Tensor]]
    dtype: str  # "F32", "F16", "BF16"; "U32": a matrix as its layout on the GPU, see `stored_words`
    shape: tuple[int, ...]
    transposed: bool = False  # [out_features, in_features] (nn.Linear), not Conv1D's [in, out]


@dataclass(frozen=True)
class Axis:
    """Padding of an axis: each group of ``group`` elements is padded to ``padded``."""

    size: int
    group: int
    padded: int

    @classmethod
    def plain(cls, size: int) -> Axis:
        """Return an axis without padding."""
        return cls(size, size, size)

    @property
    def length(self) -> int:
        """Padded length."""
        return self.size // self.group * self.padded


@dataclass(frozen=True)
class Matrix:
    """W [out_features, in_features], in parts of consecutive rows with the index of their first."""

    parts: tuple[tuple[int, Tensor], ...]
    out_features: int
    in_features: int  # a multiple of 8
    dtype: str
    rounds_activations: bool = False  # on devices where that is faster: w8a8.py

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        return self.out_features, self.in_features

    @property
    def variant(self) -> str:
        """Name of the format in kernels."""
        return WEIGHT_FORMATS[self.dtype].name


def rounds_activations(device: Device, weight: Matrix) -> bool:
    """Return whether x Wᵀ is a W8A8 product, independent of the number of tokens."""
    return device.capabilities.prefers_w8a8 and weight.rounds_activations


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


async def load_matrix(
    device: Device,
    raw: Raw,
    dtype: str,
    *,
    transpose: bool = False,
    out_features: Axis | None = None,
    in_features: Axis | None = None,
    round_activations: bool = True,
) -> Matrix:
    """Upload and convert ``raw`` [N, K] ([K, N] with ``transpose``) → W [N, K padded to 8].

    ``out_features``, ``in_features``: padding of N and K (default: not in groups), with zeros.
    ``round_activations``: whether W8A8 products may be used where they are possible.
    """
    check_weight_format(dtype)
    if len(raw.shape) != 2:
        raise ShapeError(f"a matrix has two axes, not shape {raw.shape}")
    n, k = reversed(raw.shape) if transpose else raw.shape
    out_axis, in_axis = out_features or Axis.plain(n), in_features or Axis.plain(k)
    if raw.dtype == "U32":
        if dtype not in QUANTIZED or raw.shape != stored_words(
            out_axis.length, in_axis.length, dtype
        ):
            raise ShapeError(
                f"units of {raw.shape} for a matrix {out_axis.length} x {in_axis.length} in {dtype}"
            )
    elif (out_axis.size, in_axis.size) != (n, k):
        raise ShapeError(f"axes of {out_axis.size} x {in_axis.size} for a matrix {n} x {k}")
    padded = round_up(in_axis.length, 8)
    parts: list[tuple[int, Tensor]] = []
    first = 0
    for rows in part_sizes(out_axis.length, padded, dtype, device.capabilities.max_binding):
        part = empty(device, (rows, padded), dtype, kind="weights")
        if raw.dtype == "U32":
            await _copy(device, raw, part, first)
        else:
            await _fill(device, raw, part, first, transpose, out_axis, in_axis)
        parts.append((first, part))
        first += rows
    rounds = dtype in QUANTIZED and round_activations and w8a8.possible(padded)
    return Matrix(tuple(parts), out_axis.length, padded, dtype, rounds)


def part_sizes(out_features: int, in_features: int, dtype: str, max_binding: int) -> list[int]:
    """Rows of each part of a matrix; raises ``LimitError`` if not even one fits."""
    step = STEP if dtype in QUANTIZED else 1
    step_bytes = bytes_of(step * in_features, dtype)
    if step_bytes > max_binding:
        raise LimitError(
            f"{f'{step} rows' if step > 1 else 'one row'} of {step_bytes:,} bytes exceed this "
            f"device's limit of {max_binding:,} for one binding"
        )
    fitting = max_binding // step_bytes * step
    return [min(fitting, out_features - first) for first in range(0, out_features, fitting)]


def stored_words(out_features: int, in_features: int, dtype: str) -> tuple[int, int]:
    """Shape of a quantised matrix, rows padded to 8, as "U32": units x words of a unit."""
    unit, nbytes = UNITS[dtype]
    return -(-out_features * round_up(in_features, 8) // unit), nbytes // 4


async def load_vector(
    device: Device, raw: Raw, *, axis: Axis | None = None, length: int = 0
) -> Tensor:
    """Upload and convert ``raw`` [N] → f32 [N padded], zero-padded to at least ``length``."""
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
    out_axis: Axis,
    in_axis: Axis,
) -> None:
    """Convert rows from ``first`` on of the matrix to ``result``, uploading in pieces.

    A transposed matrix is uploaded whole, since each row of the result needs all of it.
    """
    rows, in_features = result.shape
    columns = raw.shape[1]
    whole = transpose or out_axis.group != out_axis.padded
    fitting = STAGED_BYTES // (columns * SOURCE_BYTES[raw.dtype])
    piece = rows if whole else max(STEP, fitting // STEP * STEP)
    quantized = result.dtype in QUANTIZED
    for begin in range(0, rows, piece):
        count = min(piece, rows - begin)
        skipped = 0 if whole else (first + begin) * columns
        end = raw.shape[0] * columns if whole else skipped + count * columns
        words = await _upload(device, raw, skipped, end)
        threads = 4 * -(-count * in_features // UNIT) if quantized else count * in_features // 2
        dispatch(
            device,
            WEIGHT_FORMATS[result.dtype].load_kernel,
            groups_for(threads, 64),
            {"raw": words, "result": result},
            {
                "out_features": count,
                "in_features": in_features,
                "first_row": first + begin,
                "rows_before": begin,
                "out_group": out_axis.group,
                "out_padded": out_axis.padded,
                "out_size": out_axis.size,
                "out_stride": 1 if transpose else columns,
                "in_group": in_axis.group,
                "in_padded": in_axis.padded,
                "in_size": in_axis.size,
                "in_stride": columns if transpose else 1,
                "skipped": skipped,
            },
            variant={"source": raw.dtype.lower(), "packed": WEIGHT_FORMATS[result.dtype].name},
        )
        words.dispose()


async def _copy(device: Device, raw: Raw, result: Tensor, first: int) -> None:
    """Copy the stored units from row ``first`` on to ``result`` without conversion."""
    skipped = first * result.shape[1] // UNIT * raw.shape[1]
    count = result.nbytes // 4
    piece = STAGED_BYTES // 4
    for begin in range(0, count, piece):
        end = min(begin + piece, count)
        words = await _upload(device, raw, skipped + begin, skipped + end)
        copied = (words.storage.buffer, 0, result.storage.buffer, 4 * begin, 4 * (end - begin))
        device.queue.flush([copied])
        words.dispose()


async def _upload(device: Device, raw: Raw, begin: int, end: int) -> Tensor:
    """Upload elements [``begin``, ``end``) of ``raw`` as uint32."""
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
    """Return f32 [count] random values of N(0, stddev²), from index ``first`` of a sequence.

    ``stream`` selects one of the sequences of a seed. Equal on all adapters up to rounding.
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
