"""Fixtures of every test: one device, and flat memory.

A run whose tests need no GPU needs no adapter either: only the ``device`` fixture looks for one.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import gpt2_wgpu as gw


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "compute on Chromium's WebGPU instead of wgpu's own"
    parser.addoption("--gpu", choices=["native", "chromium"], default="native", help=text)
    text = "of the tests that are marked, run the cases that are meant for Chromium"
    parser.addoption("--chromium-cases", action="store_true", help=text)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Opens the page that computes for ``--gpu=chromium``, until the run ends."""
    if sys.platform != "emscripten" and session.config.getoption("--gpu") == "chromium":
        from tests.browser.relay import relayed

        session.config.add_cleanup(relayed())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In Chromium, keeps one case of each combination of the parameters that are marked.

    The cases that are kept differ from one combination to the next in all other parameters.
    """
    in_chromium = sys.platform == "emscripten" or config.getoption("--gpu") == "chromium"
    if not in_chromium and not config.getoption("--chromium-cases"):
        return
    groups: dict[Any, list[pytest.Item]] = {}
    for item in items:
        if marker := item.get_closest_marker("chromium_cases"):
            test = item.nodeid.partition("[")[0]
            named = tuple(item.callspec.params[name] for name in marker.args)  # type: ignore[attr-defined]
            groups.setdefault((test, named), []).append(item)
    kept = {group[index % len(group)] for index, group in enumerate(groups.values())}
    dropped = [item for group in groups.values() for item in group if item not in kept]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Imports PyTorch where a test will need it, and exempts all imports from garbage collection.

    Imported in the middle of a run, its objects would slow down each later ``gc.collect``.
    """
    markers = (marker for item in session.items for marker in item.iter_markers("native"))
    if not session.config.option.collectonly and any("PyTorch" in mark.args for mark in markers):
        importlib.import_module("transformers.models.gpt2.modeling_gpt2")
    gc.collect()
    gc.freeze()


finished = count(1)  # tests


def pytest_runtest_logfinish() -> None:
    """Exempts what pytest keeps of finished tests from garbage collection.

    Without it each ``gc.collect`` of ``no_leak`` takes 40 ms more after 2,000 tests.
    """
    if next(finished) % 50 == 0:
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
def capabilities(device: gw.Device) -> Iterator[Callable[..., None]]:
    """Changes the capabilities by which kernels are chosen, until the test ends."""
    with ExitStack() as changed:
        yield lambda **changes: changed.enter_context(device.with_capabilities(**changes))


@pytest.fixture
def no_leak(device: gw.Device) -> Iterator[None]:
    """Fails a test that leaves tensors, buffers or bytes on the device."""
    from tests.memory.tiny import counters

    before = counters(device)
    yield
    assert counters(device) == before
