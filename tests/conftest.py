"""Fixtures of every test: one device, and flat memory.

A run whose tests need no GPU needs no adapter either: only the ``device`` fixture looks for one.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import gpt2_wgpu as gw


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "compute on Chromium's WebGPU instead of wgpu's own"
    parser.addoption("--gpu", choices=["native", "chromium"], default="native", help=text)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Opens the page that computes for ``--gpu=chromium``, until the run ends."""
    if sys.platform != "emscripten" and session.config.getoption("--gpu") == "chromium":
        from tests.browser.relay import relayed

        session.config.add_cleanup(relayed())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Imports PyTorch where a test will need it, and exempts all imports from garbage collection.

    Imported in the middle of a run, its objects would slow down each later ``gc.collect``.
    """
    markers = (marker for item in session.items for marker in item.iter_markers("native"))
    if not session.config.option.collectonly and any("PyTorch" in mark.args for mark in markers):
        importlib.import_module("transformers.models.gpt2.modeling_gpt2")
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def device() -> Iterator[gw.Device]:
    """One device for the whole run, and the default one while it lasts.

    Without an adapter its tests fail: skipping would look like a pass.
    """
    import gpt2_wgpu as gw

    try:
        opened = gw.Device()
    except gw.errors.NoAdapterError as error:
        from bootstrap import NO_ADAPTER

        pytest.fail(f"{NO_ADAPTER} ({error})", pytrace=False)
    with opened:
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
