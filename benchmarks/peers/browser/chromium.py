"""Headless Chromium with one page per engine."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import Any

from playwright.sync_api import Error, Page, sync_playwright

from benchmarks.peers.compare import EngineFailed

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Keep background pages running.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
_MINUTE = 60_000


class Chromium:
    """Context manager of the browser."""

    version: str

    def __init__(self, path: str | None, flags: list[str] | None) -> None:
        self._flags = [*_QUIET, *(SOFTWARE if flags is None else flags)]
        self._path = path or next(filter(None, map(shutil.which, _BROWSERS)), None)
        self._stack = ExitStack()

    def __enter__(self) -> Chromium:
        if self._path is None:
            raise SystemExit("no Chromium: 'apt-get install chromium', or say --browser-path PATH")
        playwright = self._stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=self._path, args=self._flags)
        self._stack.callback(browser.close)
        self._browser, self.version = browser, browser.version
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tab(self) -> ChromiumTab:
        """Return a page with storage of its own."""
        return ChromiumTab(self._browser.new_context().new_page())


class ChromiumTab:
    """`pages.Tab` in Chromium."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._complaints: list[str] = []
        page.set_default_timeout(30 * _MINUTE)
        page.on("crash", lambda _: self._complaints.append("the page crashed"))

    def open(self, address: str) -> None:
        self._page.goto(address)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        self._page.bring_to_front()
        try:
            return self._page.evaluate(script, argument)
        except Error as error:
            reason = error.message.removeprefix("Page.evaluate: ").strip().splitlines()[0]
            raise EngineFailed("; ".join([reason, *self._complaints])) from error
