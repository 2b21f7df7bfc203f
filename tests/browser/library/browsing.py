"""Headless Chromium with tabs for tests; each tab has separate storage."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.browser.chromium import (
    FLAGS,
    collect_self_tests,
    keep_snapshot,
    restore_self_tests,
    wait_until,
)

T = TypeVar("T")
TIMEOUT_S = 120  # seconds: a busy machine computes slowly in software


class Browser:
    """Chromium at `executable`; playwright's event loop has a thread of its own."""

    def __init__(self, executable: str) -> None:
        self._thread = ThreadPoolExecutor(1, "chromium")
        self.do(lambda: self._start(executable))

    def do(self, work: Callable[[], T]) -> T:
        """What `work` gives, in playwright's thread."""
        return self._thread.submit(work).result()

    def open(self, address: str, *, self_tested: bool = True, snapshot: str = "") -> Tab:
        """A tab in a profile of its own, which knows the self-tests that passed in this run.

        `snapshot`: the address of the site whose snapshot of Python is stored there.
        """

        def opened() -> Tab:
            tab = Tab(self, self._browser.new_context(), address, self_tested)
            if snapshot:
                keep_snapshot(tab.page, snapshot)
            return tab

        return self.do(opened)

    def renderers(self) -> list[int]:
        """The processes that pages run in."""

        def ask() -> list[int]:
            session = self._browser.new_browser_cdp_session()
            found = session.send("SystemInfo.getProcessInfo")["processInfo"]
            session.detach()
            return [process["id"] for process in found if process["type"] == "renderer"]

        return self.do(ask)

    def close(self) -> None:
        self.do(self._stop)
        self._thread.shutdown()

    def _start(self, executable: str) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=executable, args=FLAGS)

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()


class Tab:
    """A page; `complaints`: uncaught errors, and errors on the console."""

    def __init__(
        self, browser: Browser, context: BrowserContext, address: str, self_tested: bool = True
    ) -> None:
        self._browser = browser
        self._context = context
        self._self_tested = self_tested
        context.set_default_timeout(TIMEOUT_S * 1000)
        self.complaints: list[str] = []
        self.page = self._opened(address)

    def _opened(self, address: str) -> Page:
        page = self._context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._note)
        if self._self_tested:
            restore_self_tests(page)
        page.goto(address)
        return page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.complaints.append(message.text)

    def beside(self, address: str) -> Tab:
        """Another tab in the same profile, which closes with this one."""
        return self._browser.do(lambda: Tab(self._browser, self._context, address))

    def collect_garbage(self) -> None:
        """Collect JavaScript objects that nothing refers to."""
        self._browser.do(lambda: self.page.request_gc())

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of JavaScript on the page."""
        return self._browser.do(lambda: self.page.evaluate(script, argument))

    def wait_for(self, script: str) -> None:
        """Wait until JavaScript on the page gives, or promises, something true."""
        self._browser.do(lambda: wait_until(self.page, script, TIMEOUT_S, self.complaints))

    def reload(self) -> None:
        self._browser.do(self.page.reload)

    def reopen(self, address: str) -> None:
        """Close the page, and open another one in the same profile."""

        def reopen() -> None:
            self.page.close()
            self.page = self._opened(address)

        self._browser.do(reopen)

    def set_offline(self, offline: bool) -> None:
        self._browser.do(lambda: self._context.set_offline(offline))

    def command(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol; what it sets lasts as long as the tab."""

        def send() -> Any:
            return self._context.new_cdp_session(self.page).send(method, parameters)

        return self._browser.do(send)

    def close(self) -> None:
        self._browser.do(self._close)

    def _close(self) -> None:
        collect_self_tests(self.page)
        self._context.close()


def weights_of(tab: Tab) -> int:
    """Bytes that live on the GPU of the tab's model `lm`."""
    bytes_held: int = tab.evaluate("async () => (await lm.memory()).numBytes")
    return bytes_held
