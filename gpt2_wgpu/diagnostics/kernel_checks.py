"""Kernel checks of the self-test (models/self_test.py): operations with known results.

A matrix product with exact integer sums, a softmax of large values, GELU at its tails (where a
naive tanh overflows), and a row times quantised weights.
"""

from __future__ import annotations

import math
import operator
from array import array
from functools import lru_cache, partial
from itertools import chain

from gpt2_wgpu import nn
from gpt2_wgpu.diagnostics.checks import PendingChecks
from gpt2_wgpu.nn import linear_choice
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS


def add_operations(checks: PendingChecks) -> None:
    """Compute a matrix product, softmax and GELU, to be checked."""
    checks.add("matmul", _matmul(checks.device), _matmul_expected)
    checks.add("softmax", _softmax(checks.device), _softmax_expected, 1e-6)
    checks.add("gelu", _gelu(checks.device), _gelu_expected, 2e-6)


async def add_products(checks: PendingChecks, dtype: str) -> None:
    """Compute products with a matrix that is exact in ``dtype``, with GPT-2's in_features.

    Of one row, and after a LayerNorm of one row, of several and of many; on a GPU of many rows in
    each size of tiles.
    """
    device = checks.device
    row = await _row(device, dtype)
    checks.add(f"{dtype} product", row, partial(_row_expected, dtype), _ROW_TOLERANCE)
    for rows in _NORMED_ROWS:
        result, rounded = await _normed(device, dtype, rows)
        expected = partial(_normed_expected, dtype, rows)
        share = _ROUNDED_SHARE if rounded else _NORMED_SHARE
        checks.add(f"{dtype} product behind a norm, rows: {rows}", result, expected, share=share)
    capabilities = device.capabilities
    if not (capabilities.prefers_no_barriers or capabilities.prefers_w8a8):
        for tile in linear_choice.TILE_ROWS:
            name = f"{dtype} product in tiles of {tile} rows"
            result = await _tiled(device, dtype, tile)
            checks.add(name, result, partial(_tiled_expected, dtype), share=_NORMED_SHARE)


# Small integers: every product and sum is exact in f32, in any order.
_M, _K, _N = 19, 72, 33


def _a(i: int, k: int) -> int:
    return (i * 7 + k * 3) % 11 - 5


def _b(k: int, j: int) -> int:
    return (k * 5 + j * 2) % 7 - 3


def _matmul(device: Device) -> Tensor:
    with tidy() as scope:
        a = tensor([[float(_a(i, k)) for k in range(_K)] for i in range(_M)], device=device)
        b = tensor([[float(_b(k, j)) for j in range(_N)] for k in range(_K)], device=device)
        return scope.escape(ops.matmul(a, b))


def _matmul_expected() -> list[float]:
    return [
        float(sum(_a(i, k) * _b(k, j) for k in range(_K))) for i in range(_M) for j in range(_N)
    ]


async def _stored(device: Device, lines: list[list[int]], dtype: str) -> nn.Matrix:
    values = memoryview(array("f", chain.from_iterable(lines))).cast("B")
    raw = nn.Raw(values, "F32", (len(lines), len(lines[0])))
    return await nn.load_matrix(device, raw, dtype)


# One row times a matrix. One element of each block of 32 sets the quantisation step of weights and
# of int8 activations to 1, 2 or 4, so that rounding is exact and a wrong result is off by at least
# 1. (Steps result from divisions, which WGSL allows errors of a few ULPs.)
_BLOCKS, _LINES, _ROW_TOLERANCE = 24, 33, 0.25


def _activation(k: int) -> int:
    block, i = divmod(k, 32)
    return (127 if i == 5 else (k * 3) % 11 - 5) << block % 3


def _weight(k: int, j: int, dtype: str) -> int:
    block, i = divmod(k, 32)
    if i == (j + 7) % 32:
        value = WEIGHT_FORMATS[dtype].largest_level
    else:
        _, most = WEIGHT_FORMATS[dtype].levels
        value = (k * 37 + j * 11) % (2 * most + 1) - most
    return value << (block + j) % 3


@lru_cache(maxsize=2)
def _weights(dtype: str) -> list[list[int]]:
    return [[_weight(k, j, dtype) for k in range(32 * _BLOCKS)] for j in range(_LINES)]


async def _row(device: Device, dtype: str) -> Tensor:
    with tidy() as scope:
        matrix = await _stored(device, _weights(dtype), dtype)
        x = tensor([[float(_activation(k)) for k in range(matrix.in_features)]], device=device)
        return scope.escape(nn.linear(x, matrix))


def _row_expected(dtype: str) -> list[float]:
    x = [_activation(k) for k in range(32 * _BLOCKS)]
    return [float(sum(map(operator.mul, x, line))) for line in _weights(dtype)]


# The same matrix after a LayerNorm with an epsilon comparable to the variance.
_NORMED_ROWS = 1, 7, 40  # LayerNorm fused into the product, and as a separate kernel
_TILED_ROWS = 61  # of the largest tile a part
_DISTINCT_ROWS = 7  # which then repeat
_EPSILON = 2000.0
_NORMED_SHARE, _ROUNDED_SHARE = 1e-4, 3e-2  # tolerances, relative to the range of results


def _normed_x(rows: int) -> list[list[float]]:
    return [
        [60.0 + _activation(k) + (k * r) % 13 for k in range(32 * _BLOCKS)]
        for r in range(min(rows, _DISTINCT_ROWS))
    ]


def _gain_and_shift() -> tuple[list[float], list[float]]:
    depth = range(32 * _BLOCKS)
    return [1 + (k % 9 - 4) / 8 for k in depth], [(k % 7 - 3) / 4 for k in depth]


async def _normed(device: Device, dtype: str, rows: int) -> tuple[Tensor, bool]:
    """Return the product, and whether its activations were rounded to int8."""
    with tidy() as scope:
        matrix = await _stored(device, _weights(dtype), dtype)
        gain, shift = (tensor(values, device=device) for values in _gain_and_shift())
        folded = nn.fold_norm(gain, shift, matrix)
        norm = nn.Norm(gain, shift, folded, matrix.in_features, _EPSILON)
        distinct = _normed_x(rows)
        x = tensor([distinct[r % len(distinct)] for r in range(rows)], device=device)
        rounded = nn.rounds_activations(device, matrix)
        return scope.escape(nn.linear(x, matrix, norm=norm)), rounded


async def _tiled(device: Device, dtype: str, tile: int) -> Tensor:
    with tidy() as scope, nn.choose_kernels("linear", partial(linear_choice.gemm, rows=tile)):
        matrix = await _stored(device, _weights(dtype), dtype)
        distinct = _normed_x(_TILED_ROWS)
        x = tensor([distinct[r % len(distinct)] for r in range(_TILED_ROWS)], device=device)
        return scope.escape(nn.linear(x, matrix))


@lru_cache(maxsize=2)
def _tiled_expected(dtype: str) -> list[float]:
    rows = [
        [float(sum(map(operator.mul, x, line))) for line in _weights(dtype)]
        for x in _normed_x(_TILED_ROWS)
    ]
    return list(chain.from_iterable(rows[r % len(rows)] for r in range(_TILED_ROWS)))


def _normed_expected(dtype: str, rows: int) -> list[float]:
    weights, (gain, shift) = _weights(dtype), _gain_and_shift()
    expected: list[float] = []
    for x in _normed_x(rows):
        mean = sum(x) / len(x)
        variance = sum((value - mean) ** 2 for value in x) / len(x)
        scale = 1 / math.sqrt(variance + _EPSILON)
        normed = [(v - mean) * scale * g + b for v, g, b in zip(x, gain, shift, strict=True)]
        expected += [sum(map(operator.mul, normed, line)) for line in weights]
    return (expected * -(-rows // _DISTINCT_ROWS))[: rows * _LINES]


def _softmax_row(shift: float) -> list[float]:
    return [shift + 0.25 * (i % 13) for i in range(201)]


def _softmax(device: Device) -> Tensor:
    with tidy() as scope:
        # e^1000 overflows unless the maximum is subtracted.
        rows = tensor([_softmax_row(0.0), _softmax_row(1000.0)], device=device)
        return scope.escape(ops.softmax(rows))


def _softmax_expected() -> list[float]:
    powers = [math.exp(x - 3.0) for x in _softmax_row(0.0)]
    return [p / sum(powers) for p in powers] * 2


_GELU_AT = [-1e4, -50.0, -10.0, -5.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 5.0, 10.0]


def _gelu(device: Device) -> Tensor:
    with tidy() as scope:
        return scope.escape(ops.gelu(tensor(_GELU_AT, device=device)))


def _gelu_reference(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_expected() -> list[float]:
    return [_gelu_reference(x) for x in _GELU_AT]
