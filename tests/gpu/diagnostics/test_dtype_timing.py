"""Microbenchmark for the default dtype of a CPU adapter."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpt2_wgpu.diagnostics import dtype_timing
from gpt2_wgpu.webgpu.waiting import sync


@pytest.mark.usefixtures("no_leak")
def test_each_dtype_is_timed(device):
    found = sync(dtype_timing.seconds_of_products(device, ("float32", "float16", "q8")), "")
    assert list(found) == ["float32", "float16", "q8"]
    assert all(0 < seconds < 10 for seconds in found.values())


@pytest.mark.usefixtures("no_leak")
def test_products_are_timed_and_nothing_else(device, monkeypatch):
    """By a clock that shows the number of dispatches: each product is one."""
    clock = SimpleNamespace(perf_counter=lambda: device.queue.dispatches)
    monkeypatch.setattr(dtype_timing, "time", clock)
    found = sync(dtype_timing.seconds_of_products(device, ("float32", "float16")), "")
    assert found == {"float32": 1, "float16": 1}


@pytest.mark.usefixtures("no_leak")
def test_what_raises_leaves_nothing(device, monkeypatch):
    async def read(ranges):
        raise OSError("in mid-measurement")

    monkeypatch.setattr(device.queue, "read", read)
    with pytest.raises(OSError, match="in mid-measurement"):
        sync(dtype_timing.seconds_of_products(device, ("float16", "q8")), "")
