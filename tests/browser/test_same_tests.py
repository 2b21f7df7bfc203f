"""The tests of engine and memory, from the same files, in the browser's Python.

Each test outside that is not marked `native` has one here that says what became of it in there.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Worker
from tests.browser.serving import ROOT

pytestmark = pytest.mark.time_limit(1400)  # seconds: the first one's fixture runs them all
ROOMS = ("gpu", "memory", "models")
TESTERS = ("iniconfig", "packaging", "pluggy", "pygments", "pytest")  # pure Python, all of them
INNER = (Path(__file__).parent / "inner_run.py").read_text()
ALL_NATIVE = re.compile(r"^pytestmark = .*\bnative\(", re.MULTILINE)

UNPACK = """
import base64, importlib, io, sys, zipfile
from pathlib import Path
import gpt2_wgpu
zipfile.ZipFile(io.BytesIO(base64.b64decode(installed))).extractall(Path(gpt2_wgpu.__file__).parents[1])
zipfile.ZipFile(io.BytesIO(base64.b64decode(repository))).extractall("/repository")
importlib.invalidate_caches()
"""


def files_for_the_browser() -> list[str]:
    """The test files that have something for the browser."""
    paths = [path for room in ROOMS for path in sorted((ROOT / "tests" / room).rglob("test_*.py"))]
    return [
        path.relative_to(ROOT).as_posix()
        for path in paths
        if not ALL_NATIVE.search(path.read_text())
    ]


@cache
def collected_outside() -> list[str]:
    """The node ids of those tests, as pytest finds them natively."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not native"]
    options = ["--no-header", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    options.append("--chromium-cases")
    found = subprocess.run(
        [*command, *options, *files_for_the_browser()], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode != 0:
        raise RuntimeError(f"pytest cannot collect:\n{found.stdout}{found.stderr}")
    return [line for line in found.stdout.splitlines() if "::" in line]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "node" in metafunc.fixturenames:
        metafunc.parametrize("node", collected_outside())


@pytest.fixture(scope="module")
def equipped(worker: Worker) -> Worker:
    """The worker, with pytest, the embedded model and this repository's tests in its files."""
    sent = {"installed": packed(installed_files()), "repository": packed(repository_files())}
    worker.run(UNPACK, **sent)
    return worker


@pytest.fixture(scope="module")
def results(equipped: Worker, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What became of each test that was asked for: they run in one go."""
    nodes = asked(request)
    return run_inside(equipped, files_of(nodes) if all_of(nodes) else nodes)


def files_of(nodes: list[str]) -> list[str]:
    """The files of these tests: others may import what the browser lacks."""
    return list(dict.fromkeys(node.partition("::")[0] for node in nodes))


def asked(request: pytest.FixtureRequest) -> list[str]:
    return [
        item.callspec.params["node"]
        for item in request.session.items
        if hasattr(item, "callspec") and "node" in item.callspec.params
    ]


def all_of(nodes: list[str]) -> bool:
    return sorted(nodes) == sorted(collected_outside())


def run_inside(worker: Worker, nodes: list[str], *, collect_only: bool = False) -> dict[str, Any]:
    code = f"{INNER}\nrun(nodes, collect_only)"
    found: dict[str, Any] = json.loads(worker.run(code, nodes=nodes, collect_only=collect_only))
    return found


def test_the_browser_collects_the_same_tests(
    equipped: Worker, request: pytest.FixtureRequest
) -> None:
    """Where all of them run, these are what was collected."""
    if all_of(asked(request)):
        inside = request.getfixturevalue("results")
    else:
        inside = run_inside(equipped, files_for_the_browser(), collect_only=True)
    assert sorted(inside) == sorted(collected_outside())


def test_in_the_browser(node: str, results: dict[str, Any]) -> None:
    outcome, _, why = results[node]
    if outcome != "passed":
        pytest.fail(f"in the browser: {outcome}\n{why}", pytrace=False)


def installed_files() -> Iterable[tuple[str, Path]]:
    """Additional files of the package: test tools, of the same versions as here, and the model."""
    for name in TESTERS:
        for file in distribution(name).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                yield str(file), Path(str(file.locate()))
    yield from below("models/fairytales")


def repository_files() -> Iterable[tuple[str, Path]]:
    """What the tests read of a checkout. Not the package: that comes from the site's wheel."""
    yield "pyproject.toml", ROOT / "pyproject.toml"
    yield from below("tests")


def below(folder: str) -> Iterable[tuple[str, Path]]:
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".json", ".py", ".safetensors", ".txt"):
            yield path.relative_to(ROOT).as_posix(), path


def packed(files: Iterable[tuple[str, Path]]) -> str:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, path in files:
            archive.write(path, name)
    return base64.b64encode(held.getvalue()).decode()
