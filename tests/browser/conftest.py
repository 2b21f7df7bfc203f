"""Fixtures: the built site on a server, Chromium, and Python in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import build_site
import pytest
from bootstrap import NO_NODE

from tests.browser.chromium import Tab, Worker, required_chromium
from tests.browser.relay import SCRIPT
from tests.browser.serving import serving
from tests.browser.time_limit import (  # hooks
    pytest_runtest_protocol as pytest_runtest_protocol,
)
from tests.browser.time_limit import (
    pytest_runtest_teardown as pytest_runtest_teardown,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make site` makes."""
    folder = tmp_path_factory.mktemp("site")
    build_site.write(folder, build_site.contents())
    return folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with serving(site) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    return required_chromium()


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of the packages of package.json."""
    found = ROOT / "node_modules"
    if not found.is_dir():
        pytest.exit(NO_NODE, returncode=1)
    return found


@pytest.fixture
def page(chromium: str, address: str) -> Iterator[Tab]:
    """An empty page with the JavaScript of the backend, `gpt2WgpuBackend`, and no Python."""
    tab = Tab(chromium, f"{address}tests/empty.html")
    tab.evaluate(f"{SCRIPT.read_text()}; null")
    yield tab
    tab.close()
    assert not tab.complaints


@pytest.fixture(scope="session")
def worker(chromium: str, address: str) -> Iterator[Worker]:
    """One worker for the whole run: Python starts once."""
    running = Worker(chromium, f"{address}tests/worker.html")
    yield running
    complaints = running.complaints
    running.close()
    assert not complaints
