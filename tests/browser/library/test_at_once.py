"""Failed and cancelled loads are reported immediately, also during other work."""

from __future__ import annotations

import threading

from tests.browser.library.browsing import Browser
from tests.browser.library.host import PREFIX, Host, Hosted

WASM = f"{PREFIX}pyodide/pyodide.asm.wasm"
LOAD = """async ([source, cancel]) => {
  const controller = new AbortController();
  if (cancel) setTimeout(() => controller.abort(), 200);
  const late = new Promise((resolve) => setTimeout(() => resolve({ name: "late" }), 20_000));
  return Promise.race([thrown(() => GPT2.load(source, { signal: controller.signal })), late]);
}"""


def test_while_python_starts(browser: Browser, host: Host) -> None:
    host.held[WASM] = threading.Event()
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    try:
        absent = tab.evaluate(LOAD, [f"{host.address}/no/such/", False])
        assert absent["name"] == "PresetError"
        assert tab.evaluate(LOAD, ["fairytales", True])["name"] == "AbortError"
        assert not host.held[WASM].is_set()
        host.held[WASM].set()  # the load after it uses the Python that was being started
        size = "async () => (await (await GPT2.load('fairytales')).memory()).numBytes"
        assert tab.evaluate(size) > 1e6
    finally:
        host.held.pop(WASM).set()
        tab.close()


def test_while_weights_are_downloaded(
    browser: Browser, host: Host, fairytales: dict[str, bytes]
) -> None:
    path = f"{PREFIX}pyodide/pyodide.mjs"
    source = host.add("endless", fairytales)
    host.files["/endless/model.safetensors"].seconds_a_chunk = 0.5
    host.files[path] = Hosted(b"", status=404)
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    try:
        failed = tab.evaluate(LOAD, [source, False])
        assert failed["name"] == "PythonStartError"
        # The download was stopped, and can go on: nothing holds its lock.
        host.files["/endless/model.safetensors"].seconds_a_chunk = 0.0
        del host.files[path]
        size = "async (s) => (await (await GPT2.load(s)).memory()).numBytes"
        assert tab.evaluate(size, source) > 1e6
    finally:
        tab.close()
