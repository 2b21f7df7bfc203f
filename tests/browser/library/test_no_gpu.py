"""Browsers without usable WebGPU: an error with a remedy, and no downloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.chromium import PLAIN_FLAGS
from tests.browser.library.browsing import Browser
from tests.browser.library.host import PREFIX, Host, Hosted

ANSWER = """async () => {
  const found = await check();
  const error = await thrown(() => GPT2.load("fairytales"));
  return { found, error };
}"""
# No switch of Chromium's removes navigator.gpu; it is removed before the library looks.
WITHOUT = b"Object.defineProperty(navigator, 'gpu', { get: () => undefined });\n"


class NoGpu(Browser):
    """Chromium as it starts without flags for WebGPU: on a bare CPU it has no adapter."""

    def _start(self, executable: str) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=executable,
            args=[*PLAIN_FLAGS, "--host-resolver-rules=MAP insecure.test 127.0.0.1"],
        )


@pytest.fixture(scope="module")
def no_gpu(chromium: str) -> Iterator[Browser]:
    browser = NoGpu(chromium)
    yield browser
    browser.close()


def answered(browser: Browser, address: str) -> tuple[Any, list[str]]:
    """What the library says there, and the addresses that were asked for meanwhile."""
    tab = browser.open("about:blank")
    asked: list[str] = []
    browser.do(lambda: tab.page.context.on("request", lambda request: asked.append(request.url)))
    browser.do(lambda: tab.page.goto(f"{address}tests/library.html"))
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    found = tab.evaluate(ANSWER)
    tab.close()
    return found, asked


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        ("no-adapter", "offers no graphics adapter", "in Firefox about:support"),
        ("no-webgpu", "has no WebGPU", "about:config (Firefox)"),
        ("insecure", "was not loaded securely", "Open it with https, or on localhost"),
    ],
)
def test_the_reason_is_told_and_nothing_is_downloaded(
    code: str, reason: str, remedy: str, no_gpu: Browser, host: Host, address: str, site: Path
) -> None:
    # `host` answers for this machine's own names only.
    insecure = address.replace("127.0.0.1", "insecure.test")
    at = insecure if code == "insecure" else host.page
    if code == "no-webgpu":
        script = WITHOUT + (site / "web" / "worker.js").read_bytes()
        host.files[f"{PREFIX}web/worker.js"] = Hosted(script, kind="text/javascript")
    answer, asked = answered(no_gpu, at)
    found, error = answer["found"], answer["error"]
    assert (found["ok"], found["code"], found["warnings"]) == (False, code, [])
    assert reason in found["reason"] and remedy in found["remedy"]
    assert error == {"name": "NoAdapterError", "message": f"{found['reason']} {found['remedy']}"}
    assert any(url.endswith("/web/worker.js") for url in asked)  # a worker's requests are seen
    assert not [
        url for url in asked if "/pyodide/" in url or "/wheels/" in url or "/models/" in url
    ]
