"""The known-answer check passes on a right device and names what a wrong one computed."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.gpu import layers, ops, self_check, self_check_async

module = sys.modules["gpt2_wgpu.gpu.self_check"]  # the package has a function of that name
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
        "linear q8",
        "linear q4",
        "cached attention",
        "greedy choice",
        "random choice",
    ]
    assert all(check.worst_error <= check.tolerance for check in report.checks)
    assert asyncio.run(self_check_async(device)) == report


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("integers", [True, False])
def test_what_decodes_is_checked(device, monkeypatch, integers):
    chosen = replace(device.capabilities, integer_products=integers)
    monkeypatch.setattr(device, "capabilities", chosen)
    profile = gw.profile(lambda: self_check(device), device)
    assert profile.result.passed
    kernels = profile.by_kernel()
    assert ("linear_dot" in kernels) == integers
    assert {"quantize_weight", "sample"} <= kernels.keys()
    assert any(kernel.startswith("attention") for kernel in kernels)


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("sample", ["greedy choice", "random choice"]),
        ("cached_attention", ["cached attention"]),
        ("project_logits", ["greedy choice", "random choice"]),
    ],
)
def test_a_layer_that_is_wrong_is_named(device, monkeypatch, name, failing):
    right = getattr(layers, name)

    def damaged(x, *args, **kwargs):
        if name == "sample":
            return  # nothing is chosen
        if name == "cached_attention":
            kwargs["scale"] = 0.9
        if name == "project_logits":
            head, state = args
            args = head, replace(state, candidates=head.rows)
        return right(x, *args, **kwargs)

    monkeypatch.setattr(layers, name, damaged)
    assert [check.name for check in self_check(device).checks if not check.passed] == failing


def test_one_level_off_is_named(device, monkeypatch):
    """As little as a wrong product in integers may be off."""
    right, expected = module._activation, {t: module._row_expected(t) for t in ("q8", "q4")}
    monkeypatch.setattr(module, "_row_expected", expected.get)
    monkeypatch.setattr(module, "_activation", lambda k: right(k) + (k == 100))
    failing = [check.name for check in self_check(device).checks if not check.passed]
    assert failing == ["linear q8", "linear q4"]


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
