"""Loads at the same time, and failed and cancelled ones, which are reported immediately."""

from __future__ import annotations

import threading

from tests.browser.library.browsing import Browser, Tab, weights_of
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
    tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
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
    tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
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


def test_loads_of_one_model_share_a_download(
    tab: Tab, host: Host, fairytales: dict[str, bytes]
) -> None:
    """The end of one by its signal does not end the others, which go on with its part."""
    path = "/shared/model.safetensors"
    source = host.add("shared", fairytales)
    host.files[path].seconds_a_chunk = 0.01
    before = weights_of(tab)
    found = tab.evaluate(
        """async (source) => {
          const controller = new AbortController();
          const onProgress = ({ bytes }) => bytes > 3e6 && controller.abort("enough");
          const dtype = "float16";
          const given = [{ dtype, signal: controller.signal, onProgress }, { dtype }, { dtype }];
          const loads = given.map((options) => GPT2.load(source, options));
          const [first, ...others] = await Promise.allSettled(loads);
          const texts = [];
          for (const { value } of others) {
            texts.push(await value.generate("The king", { temperature: 0, maxTokens: 5 }));
            await value.dispose();
          }
          return { reason: first.reason, texts };
        }""",
        source,
    )
    assert found["reason"] == "enough"
    assert found["texts"][0] == found["texts"][1] != ""
    asked = host.downloads(path)
    assert len(asked) == 2 and asked[1].range is not None
    assert weights_of(tab) == before
