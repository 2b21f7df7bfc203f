"""The built page in browsers without WebGPU: a specific remedy for each reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.page.serving import serving
from tests.browser.page.visit import Visit

NAME = "insecure.test"  # no name of this machine: the browser gives it no secure context


@pytest.fixture(scope="module")
def built(site: Path) -> Iterator[str]:
    """The built site, on localhost."""
    with serving(site) as url:
        yield url


@pytest.fixture
def gpuless(site: Path, tmp_path: Path) -> Iterator[str]:
    """The same, where workers have no `navigator.gpu`: Chromium has no switch for that."""
    script = tmp_path / "check.js"
    taken = "delete WorkerNavigator.prototype.gpu;\n"
    script.write_text(taken + (site / "web" / "check.js").read_text())
    with serving(site, instead={"/web/check.js": script}) as url:
        yield url


def test_a_browser_without_webgpu(launch: Callable[..., Browser], gpuless: str) -> None:
    reason, remedy = "This browser has no WebGPU.", "Use a current Chrome, Edge, Firefox or Safari"
    with launch() as browser:
        require(browser, gpuless, reason, remedy)


def test_a_browser_without_an_adapter(launch: Callable[..., Browser], built: str) -> None:
    """Chromium as tests start it without the switches for WebGPU in software."""
    reason = "This browser has WebGPU, but offers no graphics adapter."
    with launch("--disable-gpu", "--disable-software-rasterizer") as browser:
        require(browser, built, reason, "Turn on graphics acceleration in the browser's settings")


def test_an_insecure_origin(launch: Callable[..., Browser], built: str) -> None:
    """http, on a name that is not this machine's."""
    with launch(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as browser:
        address = built.replace("127.0.0.1", NAME)
        reason = "This page was not loaded securely"
        require(browser, address, reason, "Open it with https, or on localhost.")


def require(browser: Browser, address: str, reason: str, remedy: str) -> None:
    """The page and `GPT2.load` give this reason and remedy, and nothing large is fetched."""
    me = Visit(browser.new_context(), address, None)
    asked: list[str] = []
    me.page.on("request", lambda request: asked.append(request.url))
    expect(me("obstacle-reason")).to_contain_text(reason)
    expect(me("obstacle-remedy")).to_contain_text(remedy)
    expect(me("obstacle")).to_be_visible()
    expect(me("load")).to_be_hidden()
    expect(me("generate")).to_be_disabled()
    name, message = me.evaluate(
        """async () => {
          const { GPT2 } = await import(new URL("web/gpt2.js", location.href));
          return GPT2.load("fairytales").then(() => [], ({ name, message }) => [name, message]);
        }"""
    )
    assert name == "NoAdapterError"
    assert reason in message and remedy in message
    assert not [url for url in asked if url.endswith((".wasm", ".whl", ".safetensors"))]
    me.check()
