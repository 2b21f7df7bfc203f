"""Fixtures of the memory tests: a tiny model, and restored settings."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from tests.memory import tiny


@pytest.fixture(scope="session")
def lm(device):
    """A tiny model with text, greedy."""
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture(autouse=True)
def settings(device):
    """Budget and debug mode are the device's: each test leaves them as it found them."""
    budget, debug = device.memory.budget, device.memory.debug
    yield
    gw.set_memory_budget(budget)
    gw.set_memory_debug(debug)


@pytest.fixture
def count(device):
    """Tensors made since the test began and still alive."""
    before = gw.memory().num_tensors
    return lambda: gw.memory().num_tensors - before
