"""Order of the first downloads: Python's files and a model's, from one host or from two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.conftest import WEIGHTS
from tests.browser.library.host import PREFIX, Host, Hosted

WASM = f"{PREFIX}pyodide/pyodide.asm.wasm"
WHEEL = f"{PREFIX}wheels/wgpu-0.32.0-py3-none-any.whl"
EMBEDDED = f"{PREFIX}models/fairytales/{WEIGHTS}"
BEGIN = """(source) => {
  globalThis.controller = new AbortController();
  globalThis.stages = [];
  const onProgress = ({ stage, state }) => stages.push(`${stage} ${state}`);
  const { signal } = controller;
  globalThis.loading = thrown(async () => {
    globalThis.lm = await GPT2.load(source, { signal, onProgress });
  });
}"""
SCRIPT = f"{PREFIX}web/download-worker.js"


@pytest.fixture
def own_tab(browser: Browser, host: Host, fairytales: dict[str, bytes]) -> Iterator[Tab]:
    """A tab in which nothing was loaded; its host notes requests for the embedded weights."""
    host.files[EMBEDDED] = Hosted(fairytales[WEIGHTS])
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    yield tab
    tab.close()
    del host.files[EMBEDDED]


def until(asked: Callable[[], object], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not asked():
        assert time.monotonic() < deadline, "it is never asked for"
        time.sleep(0.02)


def stopped(tab: Tab) -> bool:
    """Stop the load, which has come far enough: a whole one takes 12 seconds of CPU time."""
    tab.evaluate("() => controller.abort()")
    reason: dict[str, str] | None = tab.evaluate("() => loading")
    return reason is not None and reason["name"] == "AbortError"


def test_weights_of_the_site_come_while_python_starts(own_tab: Tab, host: Host) -> None:
    """After Python's files, which come from the same host, and before its start is complete."""
    before = len(host.downloads(EMBEDDED))
    host.held[WASM], host.held[WHEEL] = threading.Event(), threading.Event()
    try:
        own_tab.evaluate(BEGIN, "fairytales")
        time.sleep(1)
        assert len(host.downloads(EMBEDDED)) == before
        host.held[WASM].set()
        until(lambda: len(host.downloads(EMBEDDED)) > before)
        assert "python done" not in own_tab.evaluate("() => stages")
        host.held[WHEEL].set()
        assert own_tab.evaluate("() => loading") is None
        assert "python done" in own_tab.evaluate("() => stages")
    finally:
        host.held.pop(WASM).set()
        host.held.pop(WHEEL).set()


def test_weights_of_another_host_come_at_once(
    own_tab: Tab, host: Host, fairytales: dict[str, bytes]
) -> None:
    host.held[WASM] = threading.Event()
    try:
        own_tab.evaluate(BEGIN, host.add("at-once", fairytales))
        until(lambda: host.downloads(f"/at-once/{WEIGHTS}"))
    finally:
        host.held.pop(WASM).set()
    assert own_tab.evaluate("() => loading") is None


def test_a_wait_for_python_can_be_cancelled(own_tab: Tab, host: Host) -> None:
    """And the next load of the model waits for no lock."""
    host.held[WASM] = threading.Event()
    try:
        own_tab.evaluate(BEGIN, "fairytales")
        own_tab.wait_for("() => stages.includes('python start')")
        own_tab.evaluate("() => controller.abort()")
        assert own_tab.evaluate("() => loading")["name"] == "AbortError"
        before = len(host.downloads(EMBEDDED))
        own_tab.evaluate(BEGIN, "fairytales")
    finally:
        host.held.pop(WASM).set()
    until(lambda: len(host.downloads(EMBEDDED)) > before)
    assert stopped(own_tab)


def test_a_missing_script_of_the_downloads_is_named(own_tab: Tab, host: Host) -> None:
    """While Python's files are still missing; the next load tries it again."""
    host.held[WASM] = threading.Event()
    host.files[SCRIPT] = Hosted(b"", status=404)
    try:
        own_tab.evaluate(BEGIN, "fairytales")
        fault = own_tab.evaluate("() => loading")
        assert fault["name"] == "WorkerError"
        assert (
            "web/download-worker.js of the library's folder could not be loaded" in fault["message"]
        )
        del host.files[SCRIPT]
        before = len(host.downloads(EMBEDDED))
        own_tab.evaluate(BEGIN, "fairytales")
    finally:
        host.held.pop(WASM).set()
        host.files.pop(SCRIPT, None)
    until(lambda: len(host.downloads(EMBEDDED)) > before)
    assert own_tab.evaluate("() => loading") is None
    own_tab.complaints.clear()
