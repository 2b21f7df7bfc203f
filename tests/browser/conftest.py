"""The built site, served; Chromium; and Python in a worker there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import build_site
from scripts.bootstrap import NO_CHROMIUM, find_chromium
from tests.browser.chromium import Worker
from tests.browser.serving import serving


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make site` makes."""
    folder = tmp_path_factory.mktemp("site")
    build_site.write(folder, build_site.contents())
    return folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, in a folder that is not the root, as project pages are."""
    with serving(site) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    found = find_chromium()
    if found is None:
        pytest.exit(NO_CHROMIUM, returncode=1)
    return found


@pytest.fixture(scope="session")
def worker(chromium: str, address: str) -> Iterator[Worker]:
    """One worker for the whole run: Python starts once."""
    running = Worker(chromium, f"{address}tests/blank.html")
    yield running
    complaints = running.complaints
    running.close()
    assert not complaints
