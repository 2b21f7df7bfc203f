"""Fixtures: Chromium, the page with a fake library, and auditing tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.chromium import PLAIN_FLAGS, SOFTWARE_GPU, keep_snapshot
from tests.browser.page.serving import serving
from tests.browser.page.visit import Visit

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
expect.set_options(timeout=30_000)  # two busy cores are slow; what never happens fails all the same
FAKES = {
    "/web/gpt2.js": HERE / "fake_gpt2.js",
    "/web/offline.js": HERE / "fake_offline.js",
}


@pytest.fixture(scope="module")
def launch(chromium: str) -> Iterator[Callable[..., Browser]]:
    """Starts Chromium: `launch(*flags)`.

    (Playwright keeps an event loop in its thread while it runs, so it does not outlive the module:
    other tests use `asyncio.run`.)
    """
    with sync_playwright() as playwright:

        def begin(*flags: str) -> Browser:
            return playwright.chromium.launch(executable_path=chromium, args=[*PLAIN_FLAGS, *flags])

        yield begin


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """A browser without a GPU: the fake library needs none."""
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def browser_with_gpu(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """A browser whose WebGPU is SwiftShader, on the CPU."""
    with launch(*SOFTWARE_GPU) as browser:
        yield browser


@pytest.fixture(scope="session")
def fake_address() -> Iterator[str]:
    """The page with the fake library, under a sub-path."""
    with serving(ROOT, "/some/where/", FAKES) as url:
        yield url


@pytest.fixture
def visit(browser: Browser, fake_address: str) -> Iterator[Callable[..., Visit]]:
    """Opens the page: `visit({...what the fake does}, fragment="#...", **context options)`.

    In the end every visit must have been without complaint (unless it was closed before).
    """
    visits: list[Visit] = []

    def begin(
        fake: dict[str, Any] | None = None, fragment: str = "", script: str = "", **options: Any
    ) -> Visit:
        context = browser.new_context(**options)
        visits.append(Visit(context, fake_address + fragment, fake, script))
        return visits[-1]

    yield begin
    for one in visits:
        one.check()
        one.context.close()


@pytest.fixture(scope="module")
def real_address(site: Path) -> Iterator[str]:
    """The built site, under a sub-path as on a project page."""
    with serving(site, "/gpt2-wgpu/") as url:
        yield url


@pytest.fixture
def real(browser_with_gpu: Browser, real_address: str) -> Iterator[Callable[..., Visit]]:
    """Opens the built page in a profile of its own, from whose `snapshot` Python starts."""
    visits: list[Visit] = []

    def begin(*, snapshot: bool = True, **options: Any) -> Visit:
        context = browser_with_gpu.new_context(**options)
        visits.append(Visit(context, real_address, None))
        if snapshot:
            keep_snapshot(visits[-1].page, real_address)
        return visits[-1]

    yield begin
    for one in visits:
        one.check()
        one.close()
