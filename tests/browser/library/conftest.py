"""The library in a real browser: a host with models, and pages that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import build_site
from tests.browser.library.host import Host, hosting

ROOT = Path(__file__).parents[3]
MODEL_FILES = ("config.json", "merges.txt", "model.safetensors", "vocab.json")

FLAGS = (
    "--no-sandbox --enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan "
    "--disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    build_site.write(folder, build_site.contents())
    return folder


@pytest.fixture
def host(site: Path) -> Iterator[Host]:
    """A server of the site and of models."""
    with hosting(site) as host:
        yield host


@pytest.fixture(scope="session")
def fairytales() -> dict[str, bytes]:
    """The embedded model's files."""
    folder = ROOT / "models" / "fairytales"
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}


@pytest.fixture
def open_page(chromium: Any, host: Host) -> Iterator[Callable[[str], Any]]:
    """Opens a page of the host in a profile of its own; an error on it fails the test."""
    context = chromium.new_context()
    faults: list[str] = []

    def open_page(path: str) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{host.address}{path}")
        return page

    yield open_page
    context.close()
    assert not faults
