"""The page and the real library, with a worker that can be blocked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.page.conftest import FAKES, HERE, ROOT
from tests.browser.page.serving import serving
from tests.browser.page.visit import Visit

INSTEAD = FAKES | {"/web/gpt2.js": ROOT / "web/gpt2.js", "/web/worker.js": HERE / "fake_worker.js"}


@pytest.fixture
def me(browser: Browser) -> Iterator[Visit]:
    """A page whose model is loaded and whose console is open."""
    with serving(ROOT, "/", INSTEAD) as url, browser.new_context() as context:
        visit = Visit(context, url, None)
        visit.load()
        visit("console-toggle").click()
        yield visit
        visit.check()


def run(me: Visit, code: str) -> None:
    me("code").fill(code)
    me("code").press("Enter")
    expect(me("run")).to_have_text("Stop")


def test_unload_ends_what_never_waits(me: Visit) -> None:
    run(me, "while True: pass")
    me("generate").click()
    expect(me("generate")).to_have_text("Stop")
    me("load").click()
    expect(me("model-message")).to_contain_text("never waits", timeout=10_000)
    expect(me("run")).to_have_text("Run")
    expect(me("generate")).to_have_text("Generate")
    me.load()
    me.generate()
    expect(me("model-message")).to_have_text("")


def test_a_load_that_follows_waits_for_the_new_worker(me: Visit) -> None:
    run(me, "while True: pass")
    me("load").click()
    me.load()
    me.generate()


def test_what_waits_needs_no_new_worker(me: Visit) -> None:
    run(me, "await forever")
    me("load").click()
    expect(me("load")).to_contain_text("Load")
    me.page.wait_for_timeout(6000)
    expect(me("model-message")).to_have_text("")
