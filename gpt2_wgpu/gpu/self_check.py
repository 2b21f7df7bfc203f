"""Does this device compute right? Known answers, in some ten milliseconds.

Drivers exist that return wrong numbers without an error; no feature flag tells them apart. So a
few operations with known answers run on the real device: a matrix product whose sums are exact
integers, a softmax of large values, GELU at its tails (where a naive tanh overflows), and the
stored-weight path in both formats.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gpt2_wgpu.gpu import layers, ops
from gpt2_wgpu.gpu.scopes import dispose
from gpt2_wgpu.gpu.tensor import Tensor, tensor
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
    checks = [
        await _compare(name, await compute(device), expected, tolerance)
        for name, compute, expected, tolerance in (
            ("matmul", _matmul, _matmul_expected(), 0.0),
            ("softmax", _softmax, _softmax_expected(), 1e-6),
            ("gelu", _gelu, [_gelu_reference(x) for x in _GELU_AT], 2e-6),
            ("linear f32", partial(_linear, dtype="float32"), _matmul_expected(), 0.0),
            ("linear f16", partial(_linear, dtype="float16"), _matmul_expected(), 0.0),
        )
    ]
    return CheckReport(checks)


async def _compare(name: str, result: Tensor, expected: Sequence[float], tolerance: float) -> Check:
    try:
        got = list((await result.data()).cast("B").cast("f"))
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
    weights = array("f", [_b(k, j) for j in range(_N) for k in range(_K)])
    with tidy() as scope:
        raw = layers.Raw(memoryview(weights).cast("B"), "F32", (_N, _K))
        matrix = await layers.load_matrix(device, raw, dtype)
        a = tensor([[float(_a(i, k)) for k in range(_K)] for i in range(_M)], device=device)
        return scope.escape(layers.linear(a, matrix))


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
