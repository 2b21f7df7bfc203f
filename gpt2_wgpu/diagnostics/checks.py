"""Checks of the self-test: results on the GPU, compared with known ones after one read for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.tensors.scopes import dispose, keep
from gpt2_wgpu.tensors.tensor import FORMATS, Tensor
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.readback import Readback


@dataclass(frozen=True)
class Check:
    """Result of one check; ``detail`` describes the element with the largest error."""

    name: str
    passed: bool
    worst_error: float
    tolerance: float
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """Results of a self-test."""

    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def describe_wrong(self) -> str:
        """Describe the first failed check, its error, and the number of others; "" if none."""
        wrong = [check for check in self.checks if not check.passed]
        if not wrong:
            return ""
        first, others = wrong[0], len(wrong) - 1
        more = f", and {others} more of {len(self.checks)} checks" if others else ""
        return (
            f"{first.name} ({first.detail}; an error of {first.worst_error:.2g} where "
            f"{first.tolerance:.2g} is allowed{more})"
        )


@dataclass(frozen=True)
class _Result:
    """A tensor, and what it has to contain."""

    name: str
    tensor: Tensor
    expected: Callable[[], Sequence[float]]
    tolerance: float
    share: float

    def check(self, values: memoryview, expected: Sequence[float]) -> Check:
        given = values.cast(FORMATS[self.tensor.dtype])  # type: ignore  # as in Tensor.data
        got = [float(value) for value in given]
        # NaN compares false with everything; it must count as the largest error.
        errors = [math.inf if g != g else abs(g - e) for g, e in zip(got, expected, strict=True)]
        worst = max(range(len(errors)), key=errors.__getitem__)
        detail = f"element {worst}: got {got[worst]:.9g}, expected {expected[worst]:.9g}"
        tolerance = self.tolerance
        if self.share:
            tolerance += self.share * (max(expected) - min(expected))
        return Check(self.name, errors[worst] <= tolerance, errors[worst], tolerance, detail)


class PendingChecks(NotCopyable):
    """Results that are computed, or will be, and are read together by :meth:`finish`.

    So all work is issued before anything is waited for: a browser compiles the kernels of the
    later checks beside those of the first, and while Python computes the expected values. A
    context manager, which frees the results.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._results: list[_Result] = []

    def __str__(self) -> str:
        return f"{len(self._results)} pending checks on {self.device.info.name}"

    def __enter__(self) -> PendingChecks:
        return self

    def __exit__(self, *_: object) -> None:
        dispose([each.tensor for each in self._results])

    def add(
        self,
        name: str,
        result: Tensor,
        expected: Callable[[], Sequence[float]],
        tolerance: float = 0.0,
        share: float = 0.0,
        *,
        copied: bool = False,
    ) -> None:
        """Take over ``result``, or with ``copied`` its values of now.

        Results of one name are one check.

        Args:
            name: name in reports.
            result: float32 or uint32 values.
            expected: returns the expected values in row-major order; called by `finish`.
            tolerance: largest error of a value,
            share: to which this share of the range of the expected values is added.
            copied: whether ``result`` remains the caller's, who may change its values.
        """
        taken = keep(deepcopy(result) if copied else result)
        self._results.append(_Result(name, taken, expected, tolerance, share))

    async def finish(self) -> list[Check]:
        """Read all results and compare them; in the order of `add`."""
        if not self._results:
            return []
        ranges = [(each.tensor.storage, 0, each.tensor.nbytes) for each in self._results]
        readback = Readback(self.device, ranges)
        try:
            readback.begin()
            expected = [each.expected() for each in self._results]
            values = await readback.finish()
        finally:
            readback.close()
        checks: dict[str, list[Check]] = {}
        for each, got, wanted in zip(self._results, values, expected, strict=True):
            checks.setdefault(each.name, []).append(each.check(got, wanted))
        return [_worst(of_name) for of_name in checks.values()]


def _worst(checks: Sequence[Check]) -> Check:
    """Return the first failed check, else the one closest to failing."""
    failed = (check for check in checks if not check.passed)
    return next(failed, max(checks, key=lambda check: check.worst_error))
