"""Chromium, the page in front of a fake library, and the tools that judge it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.page.serving import serving
from tests.browser.page.visit import Visit

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
TOOLS = ROOT / "build" / "page-tools"
PACKAGES = ("axe-core@4.14.1", "typescript@7.0.2")
FAKES = {
    "/web/gpt2.js": HERE / "fake_gpt2.js",
    "/web/offline.js": HERE / "fake_offline.js",
}
FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOFTWARE_GPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)


@pytest.fixture(scope="module")
def launch(chromium: str) -> Iterator[Callable[..., Browser]]:
    """Starts Chromium: `launch(*flags)`.

    (Playwright keeps an event loop in its thread while it runs, so it does not outlive the module:
    other tests use `asyncio.run`.)
    """
    with sync_playwright() as playwright:

        def begin(*flags: str) -> Browser:
            return playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])

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


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of axe-core and TypeScript, from npm at the first run."""
    modules = TOOLS / "node_modules"
    if not all((modules / package.partition("@")[0]).exists() for package in PACKAGES):
        if shutil.which("npm") is None:
            pytest.fail("no npm: install Node.js, on Debian 'apt-get install npm'", pytrace=False)
        TOOLS.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(TOOLS)]
        done = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return modules
