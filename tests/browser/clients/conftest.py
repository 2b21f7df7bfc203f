"""Fixtures: the npm package, a host of its files, and a Pyodide with micropip."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import build_npm
import pytest
from bootstrap import CLIENT_FOLDER, CLIENT_WHEELS, NO_CLIENT_WHEELS, NO_NODE
from build_site import KEPT, PYODIDE_FILES
from site_lock import lock

import gpt2_wgpu as gw
from tests.browser.clients.client import Visit, serving

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
PROMPT = "Once upon a time"


def of_the_docs(name: str) -> str:
    """The code in docs/browser.md under that mark."""
    (found,) = re.findall(rf"<!-- client: {name} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


@pytest.fixture(scope="session")
def pyodide(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pyodide's folder, which making `site` left, with the packages that its clients load."""
    wheels = sorted((ROOT / CLIENT_FOLDER).glob("*.whl"))
    if not wheels or not (ROOT / CLIENT_FOLDER / CLIENT_WHEELS.name).is_file():
        pytest.fail(NO_CLIENT_WHEELS)
    folder = tmp_path_factory.mktemp("pyodide")
    for name in PYODIDE_FILES:
        shutil.copy(KEPT / "pyodide" / name, folder)
    for wheel in wheels:
        shutil.copy(wheel, folder)
    written = lock(KEPT / "pyodide" / "pyodide-lock.json", wheels, folder="")
    (folder / "pyodide-lock.json").write_bytes(written)
    return folder


@pytest.fixture(scope="session")
def npm_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `npm install` unpacks it, in a folder node_modules, beside its archive."""
    folder = tmp_path_factory.mktemp("npm")
    assert build_npm.main([str(folder / "built")]) == 0
    command = ["npm", "pack", "--silent", f"--pack-destination={folder}", str(folder / "built")]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder / "node_modules", filter="data")
    package = folder / "node_modules" / "gpt2-wgpu"
    return (folder / "node_modules" / "package").rename(package)


@pytest.fixture(scope="session")
def host(npm_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that is served, with the npm package's wheels and model in it, and its address."""
    folder = tmp_path_factory.mktemp("host")
    for name in ("models", "wheels"):
        (folder / name).symlink_to(npm_package / "dist" / name)
    (folder / "empty.html").write_text("<!doctype html>")
    with serving(folder) as address:
        yield folder, address


@pytest.fixture
def visit(chromium: str, pyodide: Path, host: tuple[Path, str]) -> Iterator[Callable[[str], Visit]]:
    """Opens a page of the host; it may ask nothing of other hosts but Pyodide."""
    visits: list[Visit] = []

    def visit(path: str) -> Visit:
        visits.append(Visit(chromium, f"{host[1]}{path}", pyodide))
        return visits[-1]

    yield visit
    for one in visits:
        one.close()
    assert not [address for one in visits for address in one.elsewhere]


@pytest.fixture(scope="session")
def pyscript(host: tuple[Path, str], node_modules: Path) -> str:
    """The path of the page of the docs, beside PyScript from npm and the page with a worker."""
    folder, _ = host
    package = node_modules / "@pyscript" / "core" / "dist"
    if not package.is_dir():
        pytest.fail(NO_NODE)
    (folder / "pyscript").symlink_to(package)
    (folder / "page.html").write_text(of_the_docs("pyscript.html"), encoding="utf-8")
    for name in ("story.py", "pyscript-worker.html"):
        (folder / name).write_text(of_the_docs(name), encoding="utf-8")
    return "/page.html"


@pytest.fixture(scope="session")
def story(device: gw.Device) -> str:
    """What the embedded model writes natively."""
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile("greedy")
        return "".join(lm.stream(PROMPT, max_new_tokens=20))


@pytest.fixture(scope="session")
def site_wheels(site: Path) -> list[str]:
    """The names of both wheels, the package's first."""
    return sorted(wheel.name for wheel in (site / "wheels").iterdir())
