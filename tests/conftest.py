"""What every test may rely on: an adapter that computes, one device, and flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from scripts.bootstrap import NO_ADAPTER, find_adapter

if TYPE_CHECKING:
    import gpt2_wgpu as gw


def pytest_sessionstart() -> None:
    """Ends the run as a failure where no adapter is: skipping would look like a pass."""
    if find_adapter() is None:
        pytest.exit(NO_ADAPTER, returncode=1)


@pytest.fixture(scope="session")
def device() -> Iterator[gw.Device]:
    """One device for the whole run, and the default one while it lasts."""
    import gpt2_wgpu as gw

    with gw.Device() as opened:
        yield opened


@pytest.fixture
def no_leak(device: gw.Device) -> Iterator[None]:
    """Fails a test that leaves tensors or bytes on the device."""
    import gpt2_wgpu as gw

    before = gw.memory()
    yield
    after = gw.memory()
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)
