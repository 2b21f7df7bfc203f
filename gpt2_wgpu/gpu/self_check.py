"""Does this device compute right? Known answers, in some tens of milliseconds.

Drivers exist that return wrong numbers without an error; no feature flag tells them apart. So a
few operations with known answers run on the real device: a matrix product whose sums are exact
integers, a softmax of large values, GELU at its tails (where a naive tanh overflows), stored
weights in all four formats, attention over a cache, and the head with the choice of a token.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from gpt2_wgpu.gpu import layers, ops
from gpt2_wgpu.gpu.creation import tensor
from gpt2_wgpu.gpu.scopes import dispose
from gpt2_wgpu.gpu.tensor import FORMATS, Tensor
from gpt2_wgpu.gpu.tidying import tidy
from gpt2_wgpu.gpu.waiting import sync

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device


@dataclass(frozen=True)
class Check:
    """One known answer; ``detail`` names the worst element."""

    name: str
    passed: bool
    worst_error: float
    tolerance: float
    detail: str


@dataclass(frozen=True)
class CheckReport:
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def self_check(device: Device) -> CheckReport:
    """Run every check. Blocks; ``await self_check_async(device)`` in a browser."""
    return sync(self_check_async(device), "self_check_async(device)")


async def self_check_async(device: Device) -> CheckReport:
    product = _matmul_expected()
    checks = [
        await _compare(name, await compute(device), expected, tolerance)
        for name, compute, expected, tolerance in (
            ("matmul", _matmul, product, 0.0),
            ("softmax", _softmax, _softmax_expected(), 1e-6),
            ("gelu", _gelu, [_gelu_reference(x) for x in _GELU_AT], 2e-6),
            ("linear f32", partial(_linear, dtype="float32"), product, 0.0),
            ("linear f16", partial(_linear, dtype="float16"), product, 0.0),
            ("linear q8", partial(_row, dtype="q8"), _row_expected("q8"), _ROW_TOLERANCE),
            ("linear q4", partial(_row, dtype="q4"), _row_expected("q4"), _ROW_TOLERANCE),
            ("cached attention", _attention, _attention_expected(), 1e-5),
            ("greedy choice", partial(_choice, options=_GREEDY), _CHOSEN, 0.0),
            ("random choice", partial(_choice, options=_RANDOM), _CHOSEN, 0.0),
        )
    ]
    return CheckReport(checks)


async def _compare(name: str, result: Tensor, expected: Sequence[float], tolerance: float) -> Check:
    try:
        values = (await result.data()).cast("B")
        got = list(values.cast(FORMATS[result.dtype]))  # type: ignore  # as in Tensor.data
    finally:
        dispose(result)
    # NaN compares false with everything: it must count as the worst error, not as none.
    errors = [math.inf if g != g else abs(g - e) for g, e in zip(got, expected, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    detail = f"element {worst}: got {got[worst]:.9g}, expected {expected[worst]:.9g}"
    return Check(name, errors[worst] <= tolerance, errors[worst], tolerance, detail)


# Small integers: every product and sum is exact in f32, whatever the order.
_M, _K, _N = 19, 72, 33


def _a(i: int, k: int) -> int:
    return (i * 7 + k * 3) % 11 - 5


def _b(k: int, j: int) -> int:
    return (k * 5 + j * 2) % 7 - 3


async def _matmul(device: Device) -> Tensor:
    with tidy() as scope:
        a = tensor([[float(_a(i, k)) for k in range(_K)] for i in range(_M)], device=device)
        b = tensor([[float(_b(k, j)) for j in range(_N)] for k in range(_K)], device=device)
        return scope.escape(ops.matmul(a, b))


def _matmul_expected() -> list[float]:
    return [
        float(sum(_a(i, k) * _b(k, j) for k in range(_K))) for i in range(_M) for j in range(_N)
    ]


async def _linear(device: Device, dtype: str) -> Tensor:
    """The matrix product again, with B as stored weights [N, K]."""
    with tidy() as scope:
        matrix = await _stored(device, [[_b(k, j) for k in range(_K)] for j in range(_N)], dtype)
        a = tensor([[float(_a(i, k)) for k in range(_K)] for i in range(_M)], device=device)
        return scope.escape(layers.linear(a, matrix))


async def _stored(device: Device, lines: list[list[int]], dtype: str) -> layers.Matrix:
    values = memoryview(array("f", chain.from_iterable(lines))).cast("B")
    raw = layers.Raw(values, "F32", (len(lines), len(lines[0])))
    return await layers.load_matrix(device, raw, dtype)


# One row with quantised weights: on a CPU adapter the product in integers. Each block of 32 has one
# element by which weights, and activations to int8, are rounded in steps of 1, 2 or 4: nothing is
# lost, and a result that is off at all is off by at least 1. (Steps come of divisions, which WGSL
# leaves a few units in the last place.)
_BLOCKS, _LINES, _ROW_TOLERANCE = 9, 33, 0.25


def _activation(k: int) -> int:
    block, i = divmod(k, 32)
    return (127 if i == 5 else (k * 3) % 11 - 5) << block % 3


def _weight(k: int, j: int, dtype: str) -> int:
    block, i = divmod(k, 32)
    levels = 127 if dtype == "q8" else 7
    largest = 127 if dtype == "q8" else -8
    value = largest if i == (j + 7) % 32 else (k * 37 + j * 11) % (2 * levels + 1) - levels
    return value << (block + j) % 3


def _weights(dtype: str) -> list[list[int]]:
    return [[_weight(k, j, dtype) for k in range(32 * _BLOCKS)] for j in range(_LINES)]


async def _row(device: Device, dtype: str) -> Tensor:
    with tidy() as scope:
        matrix = await _stored(device, _weights(dtype), dtype)
        x = tensor([[float(_activation(k)) for k in range(matrix.depth)]], device=device)
        return scope.escape(layers.linear(x, matrix))


def _row_expected(dtype: str) -> list[float]:
    x = [_activation(k) for k in range(32 * _BLOCKS)]
    return [float(sum(map(operator.mul, x, line))) for line in _weights(dtype)]


# Attention of the last of some positions, over more than one workgroup looks at together: queries
# and keys are the states themselves, values their opposites; two heads of eight.
_POSITIONS, _HEADS, _HEAD = 150, 2, 8


def _state(t: int) -> list[float]:
    return [((t * 5 + i * 7 + t * i) % 9 - 4) / 4 for i in range(_HEADS * _HEAD)]


async def _attention(device: Device) -> Tensor:
    width = _HEADS * _HEAD
    identity = [[int(i == j) for j in range(width)] for i in range(width)]
    opposite = [[-x for x in line] for line in identity]
    states, last = [_state(t) for t in range(_POSITIONS)], _POSITIONS - 1
    with tidy() as scope:
        weight = await _stored(device, identity + identity + opposite, "float32")
        output = await _stored(device, identity, "float32")
        bias = tensor([0.0] * 3 * width, device=device)
        cache = layers.KVCache(device, 1, 1, _POSITIONS, _HEADS, _HEAD)
        for first, chunk in ((0, states[:last]), (last, states[last:])):  # a prompt, then a step
            x, start = tensor([chunk], device=device), tensor([first], "uint32", device=device)
            queries = layers.project_qkv(x, weight, bias, cache, 0, start)
        attended = layers.cached_attention(queries, cache, 0, start, scale=1.0)
        return scope.escape(layers.linear(attended, output))


def _attention_expected() -> list[float]:
    states, expected = [_state(t) for t in range(_POSITIONS)], []
    for head in range(0, _HEADS * _HEAD, _HEAD):
        rows = [state[head : head + _HEAD] for state in states]
        powers = [math.exp(sum(map(operator.mul, rows[-1], row))) for row in rows]
        for column in zip(*rows, strict=True):
            expected.append(-sum(map(operator.mul, powers, column)) / sum(powers))
    return expected


# One logit leads by so much that a draw takes it, too: one row's are all negative, and the largest
# are beyond what may be chosen.
_VOCABULARY, _CANDIDATES = 600, 590
_CHOSEN = [299.0, 517.0]
_GREEDY = layers.SamplingOptions(temperature=0.0)
_RANDOM = layers.SamplingOptions(temperature=0.5, top_k=40, top_p=0.9, seed=1)


def _logits(v: int) -> list[int]:
    if v >= _CANDIDATES:
        return [100, 100]
    return [-1 if v == _CHOSEN[0] else -60 - v % 31, 60 if v == _CHOSEN[1] else v % 7]


async def _choice(device: Device, options: layers.SamplingOptions) -> Tensor:
    with tidy() as scope:
        head = await _stored(device, [_logits(v) for v in range(_VOCABULARY)], "float16")
        rows = [[[float(i == row) for i in range(head.depth)]] for row in range(2)]
        history = [layers.History([0], 1)] * 2
        state = layers.SamplingState.create(device, history, [9, 9], options, [], _CANDIDATES)
        logits = layers.project_logits(tensor(rows, device=device), head, state)
        layers.sample(logits, state)
        return scope.escape(state.token)


def _softmax_row(shift: float) -> list[float]:
    return [shift + 0.25 * (i % 13) for i in range(201)]


async def _softmax(device: Device) -> Tensor:
    with tidy() as scope:
        # Large values: e^1000 overflows unless the maximum is subtracted first.
        rows = tensor([_softmax_row(0.0), _softmax_row(1000.0)], device=device)
        return scope.escape(ops.softmax(rows))


def _softmax_expected() -> list[float]:
    powers = [math.exp(x - 3.0) for x in _softmax_row(0.0)]
    return [p / sum(powers) for p in powers] * 2


_GELU_AT = [-1e4, -50.0, -10.0, -5.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 5.0, 10.0]


async def _gelu(device: Device) -> Tensor:
    with tidy() as scope:
        return scope.escape(ops.gelu(tensor(_GELU_AT, device=device)))


def _gelu_reference(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
