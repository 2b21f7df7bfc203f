"""The library in a real browser: a host with models, and tabs that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host, hosting

ROOT = Path(__file__).parents[3]
MODEL_FILES = ("config.json", "merges.txt", "model.safetensors", "vocab.json")


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the whole run."""
    browser = Browser(chromium)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def host(site: Path) -> Iterator[Host]:
    """A server of the site and of models."""
    with hosting(site) as host:
        yield host


@pytest.fixture(autouse=True)
def clean_host(host: Host) -> None:
    """Each test brings its own models."""
    host.files.clear()
    host.asked.clear()


@pytest.fixture(scope="session")
def fairytales() -> dict[str, bytes]:
    """The embedded model's files."""
    folder = ROOT / "models" / "fairytales"
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}


@pytest.fixture
def open_tab(browser: Browser, host: Host) -> Iterator[Callable[[str], Tab]]:
    """Opens a page of the site in a profile of its own; an error that nobody caught fails."""
    tabs: list[Tab] = []

    def open_tab(path: str) -> Tab:
        tabs.append(browser.open(f"{host.page}{path}"))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()
    assert not [complaint for tab in tabs for complaint in tab.complaints]


@pytest.fixture(scope="session")
def loading(browser: Browser, host: Host) -> Iterator[tuple[Tab, list[dict[str, Any]]]]:
    """A tab whose `lm` is the embedded model, and the progress of loading it."""
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    progress = tab.evaluate("""async () => {
          const progress = [];
          const onProgress = (report) => progress.push(report);
          globalThis.lm = await GPT2.load("fairytales", { onProgress });
          return progress;
        }""")
    yield tab, progress
    tab.close()
    assert not tab.complaints


@pytest.fixture
def tab(loading: tuple[Tab, Any]) -> Tab:
    return loading[0]
