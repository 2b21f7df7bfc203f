"""What every test may rely on: an adapter that computes, one device, and flat memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if sys.platform != "emscripten":
    from scripts.bootstrap import NO_ADAPTER, find_adapter

if TYPE_CHECKING:
    import gpt2_wgpu as gw


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "compute on Chromium's WebGPU instead of wgpu's own"
    parser.addoption("--gpu", choices=["native", "chromium"], default="native", help=text)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ends the run as a failure where no adapter is: skipping would look like a pass."""
    if sys.platform == "emscripten":
        return  # the test that runs this one there has looked
    if session.config.getoption("--gpu") == "chromium":
        from tests.browser.relay import relayed

        session.config.add_cleanup(relayed())
        return
    if find_adapter() is None:
        pytest.exit(NO_ADAPTER, returncode=1)


def pytest_collection_finish() -> None:
    """What is imported by now is never garbage: collecting without it takes no time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def device() -> Iterator[gw.Device]:
    """One device for the whole run, and the default one while it lasts."""
    import gpt2_wgpu as gw

    with gw.Device() as opened:
        yield opened


@pytest.fixture
def no_leak(device: gw.Device) -> Iterator[None]:
    """Fails a test that leaves tensors, buffers or bytes on the device."""
    before = _live()
    yield
    assert _live() == before


def _live() -> dict[str, Any]:
    """The counters of what lives; garbage of this test or an earlier one does not."""
    import gpt2_wgpu as gw

    gc.collect()
    info = gw.memory()
    names = ("num_tensors", "num_buffers", "num_bytes", "num_bytes_in_gpu", "by_kind")
    return {name: getattr(info, name) for name in names}
