"""Fixtures for kernels: both variants of each, and guard bands around every tensor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gpu.guard_bands import GuardBands


@pytest.fixture
def guarded(device, monkeypatch):
    """Runs a test between guard bands."""
    bands = GuardBands(device, monkeypatch)
    yield bands
    bands.check()


@pytest.fixture(params=[True, False], ids=["rows", "workgroups"])
def variant(request, device, monkeypatch):
    """Runs a test with the kernels for CPU adapters and with those for GPUs."""
    monkeypatch.setattr(
        device, "capabilities", replace(device.capabilities, barrier_free=request.param)
    )
    return request.param
