"""A headless Chromium with WebGPU in software, and a worker in it that runs Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import ConsoleMessage, Error, Page, sync_playwright

T = TypeVar("T")

FLAGS = (
    "--no-sandbox",  # tests may run as root, and load nothing but this repository
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


class PythonError(Exception):
    """Python in the worker raised; the message is its traceback."""


class Worker:
    """Python in a worker of a page at `address`; it keeps its state from one `run` to the next.

    Playwright's plain API leaves an event loop running in the thread it was started from, where
    `asyncio.run` then fails: it gets a thread of its own.
    """

    def __init__(self, executable: str, address: str) -> None:
        self.complaints: list[str] = []  # errors and warnings in the browser's console
        self._thread = ThreadPoolExecutor(1, "chromium")
        self._do(lambda: self._start(executable, address))

    def run(self, code: str, /, **values: Any) -> Any:
        """The value of the last line of `code`, which sees `values` and may `await`.

        Values and result are what JSON can say. Raises `PythonError`.
        """
        given = f"import json as _json\nglobals().update(_json.loads({json.dumps(values)!r}))\n"
        try:
            return self._do(lambda: self._page.evaluate("code => ask(code)", given + code))
        except Error as error:
            raise PythonError(error.message) from None

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of JavaScript on the page."""
        return self._do(lambda: self._page.evaluate(script, argument))

    def close(self) -> None:
        self._do(self._stop)
        self._thread.shutdown()

    def _do(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _start(self, executable: str, address: str) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=executable, args=FLAGS)
        self._page: Page = self._browser.new_page()
        self._page.on("console", self._note)
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._page.goto(address)
        self._page.wait_for_function("() => Boolean(globalThis.ask)")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()
