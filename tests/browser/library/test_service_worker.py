"""Service worker: the site offline, and updates without mixed versions."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.cli.static_site import POLICY
from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host, hosting

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<title>%s</title><script type="module" src="web/marker.js"></script>"""
CACHES = "async () => (await caches.keys()).filter((name) => name.includes('gpt2-wgpu'))"
VERSION = "() => [document.title, globalThis.marker]"


def publish(site: Path, version: str) -> None:
    """Put a version of a page into the site, and a manifest that fits."""
    (site / "index.html").write_text(PAGE % version)
    (site / "web" / "marker.js").write_text(
        f'import * as library from "./gpt2.js";\n'
        f'Object.assign(globalThis, library, {{ marker: "{version}" }});'
    )
    entries = {
        path.relative_to(site).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(site.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    (site / "manifest.json").write_text(json.dumps(entries))


@pytest.fixture
def copy(site: Path, tmp_path: Path) -> Path:
    """A site that a test may change."""
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    publish(folder, "first")
    return folder


@pytest.fixture
def changing(copy: Path) -> Iterator[Host]:
    with hosting(copy) as host:
        yield host


@pytest.fixture
def visit(browser: Browser, changing: Host) -> Iterator[Callable[[], Tab]]:
    tabs: list[Tab] = []

    def visit() -> Tab:
        tabs.append(browser.open(changing.page))
        tabs[-1].wait_for("() => Boolean(globalThis.offline)")
        return tabs[-1]

    yield visit
    for tab in tabs:
        tab.close()


def enable(tab: Tab) -> Any:
    return tab.evaluate("() => offline.enable()")


def test_offline_reload(visit: Callable[[], Tab], changing: Host) -> None:
    tab = visit()
    assert enable(tab)
    tab.evaluate("async () => (await GPT2.load('fairytales')).dispose()")
    tab.set_offline(True)
    tab.reopen(changing.page)
    tab.wait_for("() => Boolean(globalThis.offline)")
    found = tab.evaluate(
        """async () => {
          const lm = await GPT2.load("fairytales");
          const text = await lm.generate("The king", {temperature: 0, maxTokens: 2});
          return { text, offline: await offline.enable() };
        }"""
    )
    assert found["text"]
    assert found["offline"] is True


def test_a_new_version_takes_over_as_a_whole(
    visit: Callable[[], Tab], changing: Host, copy: Path
) -> None:
    tab = visit()
    assert enable(tab)
    tab.reload()
    assert tab.evaluate(VERSION) == ["first", "first"]
    publish(copy, "second")
    tab.reload()
    tab.wait_for("() => Boolean(globalThis.offline)")
    assert tab.evaluate(VERSION) == ["first", "first"]  # what is kept, as a whole
    assert enable(tab)
    assert len(tab.evaluate(CACHES)) == 2  # the new one waits until no page needs the old one
    tab.reload()
    assert tab.evaluate(VERSION) == ["first", "first"]
    for _ in range(10):  # the browser stops the unused old one with a delay
        tab.reopen("about:blank")
        tab.reopen(changing.page)
        tab.wait_for("() => Boolean(globalThis.offline)")
        if tab.evaluate("() => globalThis.marker") == "second":
            break
    assert tab.evaluate(VERSION) == ["second", "second"]
    tab.wait_for(CACHES.replace("=> (await", "=> 1 === (await").replace("'))", "')).length"))


def test_half_a_version_is_refused(visit: Callable[[], Tab], changing: Host, copy: Path) -> None:
    tab = visit()
    assert enable(tab)
    tab.reload()
    publish(copy, "second")
    (copy / "web" / "marker.js").write_text("globalThis.marker = 'half';")
    tab.reload()
    tab.wait_for("() => Boolean(globalThis.offline)")
    assert enable(tab)  # still: by the first one
    assert len(tab.evaluate(CACHES)) == 1
    tab.set_offline(True)
    tab.reopen(changing.page)
    tab.wait_for("() => globalThis.marker === 'first'")


def test_a_site_that_is_damaged_is_not_kept(visit: Callable[[], Tab], copy: Path) -> None:
    tab = visit()
    (copy / "web" / "rpc.js").write_text("damaged")
    assert not enable(tab)
    assert tab.evaluate(CACHES) == []


def test_models_are_not_kept_twice(visit: Callable[[], Tab]) -> None:
    tab = visit()
    assert enable(tab)
    kept = tab.evaluate(
        """async () => {
          const name = (await caches.keys()).find((each) => each.includes('gpt2-wgpu'));
          return (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname);
        }"""
    )
    assert "/a/page/web/gpt2.js" in kept
    assert "/a/page/pyodide/pyodide.asm.wasm" in kept
    assert not [path for path in kept if "/models/" in path]


def test_the_policy_is_kept_with_the_files(visit: Callable[[], Tab], changing: Host) -> None:
    """A worker that is started offline is under the policy it had online."""
    tab = visit()
    assert enable(tab)
    tab.set_offline(True)
    tab.reopen(changing.page)
    policy = tab.evaluate(
        """async () => (await fetch("web/worker.js")).headers.get("Content-Security-Policy")"""
    )
    assert policy == POLICY
