"""Tests whose JavaScript never settles (tests/browser/time_limit.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.browser.conftest import *"
SETTINGS = "[tool.pytest.ini_options]\nmarkers = ['time_limit']\n"
TESTS = """
import pytest
from tests.browser.chromium import Tab

@pytest.fixture(scope="session")
def tab(chromium):
    running = Tab(chromium, "about:blank")
    yield running
    running.close()

def test_first(tab):
    assert tab.evaluate("1 + 1") == 2

@pytest.mark.time_limit(3)
def test_a_promise(tab):
    tab.evaluate("new Promise(() => {})")

def test_second(tab):
    assert tab.evaluate("1 + 1") == 2

@pytest.mark.time_limit(3)
def test_a_loop(tab):
    tab.evaluate("for (;;);")

def test_third(tab):
    assert tab.evaluate("1 + 1") == 2
"""


def test_a_test_that_hangs_fails_alone(tmp_path: Path, chromium: str) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    for each in ("first", "second", "third"):
        assert f"PASSED test_it.py::test_{each}" in run.stdout, run.stdout + run.stderr
    for each in ("a_promise", "a_loop"):
        assert f"FAILED test_it.py::test_{each}" in run.stdout, run.stdout
    assert run.stdout.count("not done within 3 s") == 2
