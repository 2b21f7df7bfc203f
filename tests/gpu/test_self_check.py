"""The known-answer check passes on a right device and names what a wrong one computed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.gpu import ops, self_check, self_check_async

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("NumPy")]


@pytest.mark.usefixtures("variant")
def test_a_right_device_passes(device):
    report = self_check(device)
    assert report.passed
    assert [check.name for check in report.checks] == [
        "matmul",
        "softmax",
        "gelu",
        "linear f32",
        "linear f16",
    ]
    assert all(check.worst_error <= check.tolerance for check in report.checks)
    assert asyncio.run(self_check_async(device)) == report


@pytest.mark.parametrize(
    ("name", "right"), [("matmul", ops.matmul), ("softmax", ops.softmax), ("gelu", ops.gelu)]
)
@pytest.mark.parametrize("wrong", [1.5, float("nan")])
def test_a_wrong_number_is_named(device, monkeypatch, name, right, wrong):
    def damaged(*args):
        values = right(*args).numpy()
        values.flat[7] += wrong
        return gw.tensor(values, device=device)

    monkeypatch.setattr(ops, name, damaged)
    report = self_check(device)
    assert not report.passed
    (check,) = [check for check in report.checks if not check.passed]
    assert check.name == name
    assert check.detail.startswith("element 7: got ")
    assert check.worst_error == pytest.approx(1.5, rel=1e-3) or np.isinf(check.worst_error)
