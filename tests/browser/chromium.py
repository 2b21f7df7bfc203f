"""Headless Chromium with software WebGPU, and a worker that runs Python."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bootstrap import NO_CHROMIUM, find_chromium
from playwright.sync_api import ConsoleMessage, Error, Page, sync_playwright

T = TypeVar("T")

PLAIN_FLAGS = (
    "--no-sandbox",  # tests may run as root, and load nothing but this repository
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
SOFTWARE_GPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)
FLAGS = (*PLAIN_FLAGS, *SOFTWARE_GPU)


def required_chromium() -> str:
    """The path of the browser; without one the run ends as a failure."""
    found = find_chromium()
    if found is None:
        pytest.exit(NO_CHROMIUM, returncode=1)
    return found


def software_vulkan() -> dict[str, str]:
    """The environment in which a program finds the Vulkan driver that comes with Chromium.

    Dawn, which Node uses, rejects older versions of Mesa's.
    """
    drivers = sorted(Path("/usr/lib").glob("chromium*/vk_swiftshader_icd.json"))
    return {"VK_ICD_FILENAMES": str(drivers[0])} if drivers else {}


def wait_until(
    page: Page, script: str, patience: float = 60, complaints: Sequence[str] = ()
) -> None:
    """Wait up to `patience` seconds until what JavaScript on the page gives, or promises, is true.

    `complaints`: errors of the page, which a TimeoutError names. Playwright's own
    `wait_for_function` takes any promise for true.
    """
    deadline = time.monotonic() + patience
    while not page.evaluate(script):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {patience:.0f} s: {script}; {[*complaints]}")
        page.wait_for_timeout(20)


# --- self-tests ---------------------------------------------------------------------------------
# The library stores a self-test that passed in the origin's Cache Storage, under an address that
# names the adapter, the kernels and the weight dtype, and the speeds of weight dtypes likewise.
# Pages of later profiles in the same run get these and skip the self-test, which takes SwiftShader
# eight seconds.

_facts: dict[str, str] = {}  # by address, JSON
_COLLECT = """async () => {
  if (!globalThis.caches || !(await caches.has("machine-facts"))) return {};
  const cache = await caches.open("machine-facts");
  const facts = {};
  for (const request of await cache.keys()) {
    const address = request.url.slice(new URL(request.url).origin.length);
    facts[address] = await (await cache.match(request)).text();
  }
  return facts;
}"""
_RESTORE = """(async (facts) => {
  const cache = await caches.open("machine-facts");
  await Promise.all(Object.entries(facts).map(([at, fact]) => cache.put(at, new Response(fact))));
})(%s).catch(() => {});"""  # about:blank has no Cache Storage


def restore_self_tests(page: Page) -> None:
    """Give the pages that will be opened here what pages of this run have stored so far."""
    if _facts:
        page.add_init_script(_RESTORE % json.dumps(_facts))


def collect_self_tests(page: Page) -> None:
    """Keep the self-tests and speeds that this page has stored."""
    with suppress(Error):  # closed, or of no site
        _facts.update(page.evaluate(_COLLECT))


# --- snapshots ----------------------------------------------------------------------------------
# Python starts from a snapshot of its memory if the profile has one, as from the second visit on.

_KEEP_SNAPSHOT = """async (site) => {
  const manifest = await (await fetch(new URL("manifest.json", site))).json();
  const path = Object.keys(manifest).find((name) => name.startsWith("pyodide/snapshot-"));
  await (await caches.open("snapshot for tests")).add(new URL(path, site));
}"""


def keep_snapshot(page: Page, site: str) -> None:
    """Store the snapshot of `site` in the profile: Python starts with 4 s of CPU time less.

    For tests of something else than its start.
    """
    page.evaluate(_KEEP_SNAPSHOT, site)


class PythonError(Exception):
    """Python in the worker raised; the message is its traceback."""


class Tab:
    """A page at `address`, in a browser of its own.

    Playwright's plain API leaves an event loop running in the thread it was started from, where
    `asyncio.run` then fails: it gets a thread of its own.
    """

    def __init__(self, executable: str, address: str) -> None:
        self.complaints: list[str] = []  # errors and warnings in the browser's console
        self._thread = ThreadPoolExecutor(1, "chromium")
        self._do(lambda: self._start(executable, address))

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of JavaScript on the page; a promise is waited for."""
        return self._do(lambda: self._page.evaluate(script, argument))

    def wait_for(self, script: str, patience: float = 60) -> None:
        """Wait until JavaScript on the page gives, or promises, something true."""
        self._do(lambda: wait_until(self._page, script, patience, self.complaints))

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
        self._prepare()
        restore_self_tests(self._page)
        self._page.goto(address)

    def _prepare(self) -> None:
        """What is done before the page is opened."""

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _stop(self) -> None:
        collect_self_tests(self._page)
        self._browser.close()
        self._playwright.stop()


class Worker(Tab):
    """Python in a worker of the page worker.html; it keeps its state from one `run` to the next."""

    def run(self, code: str, /, **values: Any) -> Any:
        """The value of the last line of `code`, which sees `values` and may `await`.

        Values and result are what JSON can say. Raises `PythonError`.
        """
        given = f"import json as _json\nglobals().update(_json.loads({json.dumps(values)!r}))\n"
        try:
            return self.evaluate("code => ask(code)", given + code)
        except Error as error:
            raise PythonError(error.message) from None
