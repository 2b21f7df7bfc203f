"""Microbenchmark for the default dtype of a CPU adapter."""

from __future__ import annotations

import pytest

from gpt2_wgpu.diagnostics import dtype_timing
from gpt2_wgpu.webgpu.waiting import sync


@pytest.mark.usefixtures("no_leak")
def test_each_dtype_is_timed(device):
    found = sync(dtype_timing.seconds_of_products(device, ("float32", "float16", "q8")), "")
    assert list(found) == ["float32", "float16", "q8"]
    assert all(0 < seconds < 10 for seconds in found.values())


@pytest.mark.usefixtures("no_leak")
def test_more_work_takes_longer(device, monkeypatch):
    """It is the product that is timed, not the way there."""
    once = sync(dtype_timing.seconds_of_products(device, ("float32",)), "")["float32"]
    monkeypatch.setattr(dtype_timing, "OUT_FEATURES", 8 * dtype_timing.OUT_FEATURES)
    assert sync(dtype_timing.seconds_of_products(device, ("float32",)), "")["float32"] > 3 * once


@pytest.mark.usefixtures("no_leak")
def test_what_raises_leaves_nothing(device, monkeypatch):
    async def read(ranges):
        raise OSError("in mid-measurement")

    monkeypatch.setattr(device.queue, "read", read)
    with pytest.raises(OSError, match="in mid-measurement"):
        sync(dtype_timing.seconds_of_products(device, ("float16", "q8")), "")
