"""Fixtures of the library's tests: a host with models, and browser tabs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host, hosting

ROOT = Path(__file__).parents[3]
WEIGHTS = "model.safetensors"
SIZE = 1_500_000  # of the weights
HALF = SIZE // 2
MODEL_FILES = ("config.json", "merges.txt", "model.safetensors", "vocab.json")


class Attempt:
    """Calls the downloads; what comes is {"value"} or {"error": {"name", "message"}}."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def __call__(self, method: str, *args: Any, stop_at: int | None = None) -> dict[str, Any]:
        code = "([method, args, stop]) => attempt(method, args, stop ?? undefined)"
        result: dict[str, Any] = self.tab.evaluate(code, [method, list(args), stop_at])
        return result


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def obtain(attempt: Attempt, source: str, **options: Any) -> dict[str, Any]:
    result = attempt("obtain", source, options)
    assert "error" not in result, result["error"]
    value: dict[str, Any] = result["value"]
    return value


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
    """Opens a page of the site in its own profile; an uncaught error fails the test."""
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
    """A tab whose `lm` is the embedded model in float16, and the progress of loading it."""
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    progress = tab.evaluate("""async () => {
          const progress = [];
          const onProgress = (report) => progress.push(report);
          globalThis.lm = await GPT2.load("fairytales", { dtype: "float16", onProgress });
          return progress;
        }""")
    yield tab, progress
    tab.close()
    assert not tab.complaints


@pytest.fixture
def tab(loading: tuple[Tab, Any]) -> Tab:
    return loading[0]


@pytest.fixture
def files() -> dict[str, bytes]:
    """Files named as a model's: what they hold is Python's business, not the downloads'."""
    weights = bytes(range(256)) * (SIZE // 256 + 1)
    return {
        "config.json": b"{}",
        WEIGHTS: weights[:SIZE],
        "vocab.json": b'{"a": 0}',
        "merges.txt": b"a b\n",
    }


@pytest.fixture
def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: sha256(data) for name, data in files.items()}


@pytest.fixture
def attempt(open_tab: Callable[[str], Tab]) -> Attempt:
    return Attempt(open_tab("tests/downloads.html"))
