"""Updates of a page cached offline, without a model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chromium import wait_until
from tests.browser.page.serving import serving

ENABLE = """async () => {
  const { offline } = await import(new URL("web/offline.js", document.baseURI).href);
  return offline.enable();
}"""
_NEXT_WAITS = """async () => {
  const { waiting, active } = await navigator.serviceWorker.getRegistration();
  return waiting && waiting.scriptURL !== active.scriptURL;
}"""
_INSTALLED = """async () => {
  const { installing } = await navigator.serviceWorker.getRegistration();
  return !installing;
}"""
DATE = 1_000_000_000  # of all files, as some builds do: their host calls a new one unchanged
VERSIONS = "async () => (await caches.keys()).length"


def publish(site: Path, title: str) -> None:
    """Another version: page, service worker and manifest."""
    page = site / "index.html"
    start, _, rest = page.read_text().partition("<title>")
    page.write_text(f"{start}<title>{title}</title>{rest.partition('</title>')[2]}")
    script = site / "service-worker.js"
    script.write_text(f"{script.read_text()}// {title}\n")
    manifest = json.loads((site / "manifest.json").read_text())
    for path in ("index.html", "service-worker.js"):
        data = (site / path).read_bytes()
        manifest[path] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (site / "manifest.json").write_text(json.dumps(manifest))
    for path in ("index.html", "service-worker.js", "manifest.json"):
        os.utime(site / path, (DATE, DATE))


@pytest.fixture
def changing(site: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    publish(copy, "first")
    return copy


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as context:
        yield context


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    return page


def test_opening_the_page_is_enough(context: BrowserContext, changing: Path) -> None:
    with serving(changing, "/here/") as url:
        page = opened(context, url)
        assert page.evaluate(ENABLE)
        page.close()
        publish(changing, "second")
        page = opened(context, url)
        expect(page).to_have_title("first")  # what is kept, as a whole
        wait_until(page, _NEXT_WAITS)
        assert page.evaluate(VERSIONS) == 2
        blank = context.new_page()
        for _ in range(10):  # the browser stops the unused old one with a delay
            page.close()
            blank.wait_for_timeout(1000)
            page = opened(context, url)
            if page.title() == "second":
                break
        expect(page).to_have_title("second", timeout=1000)


def test_the_old_version_asked_for_again_still_serves(
    context: BrowserContext, changing: Path
) -> None:
    """As browsers do by themselves: the script of the old address has new bytes."""
    with serving(changing, "/here/") as url:
        page = opened(context, url)
        assert page.evaluate(ENABLE)
        script = changing / "service-worker.js"
        script.write_text(f"{script.read_text()}// of a version that is not whole yet\n")
        (changing / "manifest.json").write_text("{}")
        page.evaluate("async () => (await navigator.serviceWorker.getRegistration()).update()")
        wait_until(page, _INSTALLED)
        assert page.evaluate(VERSIONS) == 1
        page.close()
        context.set_offline(True)
        page = opened(context, url)
        expect(page).to_have_title("first")
