"""Fixtures for kernels: both variants of each, and guard bands around every tensor."""

from __future__ import annotations

import gc

import pytest

from gpt2_wgpu.tensors.ops import launch


@pytest.fixture(autouse=True)
def no_collection():
    """Garbage of earlier tests may hold tensors: freed within a test, it would upset its counts."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def guarded(device, monkeypatch):
    """Runs a test between guard bands."""
    from tests.gpu.guard_bands import GuardBands  # NumPy, which a browser lacks

    bands = GuardBands(device, monkeypatch)
    yield bands
    bands.check()


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def variant(request, capabilities):
    """Runs a test with the kernels for CPU adapters and with those for GPUs."""
    capabilities(prefers_no_barriers=request.param)
    return request.param


@pytest.fixture
def narrow_grid(monkeypatch):
    """Folds every list of more than 7 workgroups into a rectangle, as WebGPU does from 65,536."""
    monkeypatch.setattr(launch, "_MAX_GROUPS", 7)
