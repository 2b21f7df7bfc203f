"""Tests that fail once, and tests that fail again (tests/flaky.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TESTS = {
    "once": "def test_once(runs):\n    assert len(runs) > 1",
    "always": "def test_always(runs):\n    assert False",
    "passes": "def test_passes(runs):\n    assert len(runs) == 1",
    "at setup": "@pytest.fixture\ndef broken(runs):\n    assert len(runs) > 1\n"
    "def test_setup(broken):\n    ...",
    "skips": "def test_skips(runs):\n    if len(runs) > 1:\n        pytest.skip('now')\n"
    "    assert False",
    "many": "@pytest.mark.parametrize('n', range(11))\ndef test_many(n, runs):\n"
    "    assert len(runs) > 1",
    "crash": "import os\ndef test_crash(runs):\n    os._exit(3)",
    "hangs": "import time\ndef test_hangs(runs):\n    time.sleep(60)",
}
FIXTURES = """
import os
import pytest

@pytest.fixture
def runs(request):
    "The processes that ran the test so far, this one included."
    path = request.config.rootpath / f"{request.node.name}.runs"
    with path.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return path.read_text().split()
"""


def run(folder: Path, *names: str) -> tuple[int, list[str]]:
    """Exit status and lines of a run of these tests under the plugin."""
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "test_it.py").write_text("\n".join([FIXTURES, *(TESTS[name] for name in names)]))
    options = ["-o", "faulthandler_timeout=2", "-o", "faulthandler_exit_on_timeout=true"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.flaky", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()


def runs_of(folder: Path, test: str) -> int:
    return len((folder / f"{test}.runs").read_text().split())


def test_a_run_whose_failures_pass_alone_passes(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "passes", "once", "at setup")
    named = ["FLAKY: test_it.py::test_once", "FLAKY: test_it.py::test_setup"]
    assert (status, lines[-2:]) == (0, named)
    assert (tmp_path / "build" / "flaky.txt").read_text().splitlines() == named
    assert runs_of(tmp_path, "test_passes") == 1


def test_a_failure_that_stays_fails_the_run(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "once", "always")
    assert (status, lines[-1]) == (1, "FLAKY: test_it.py::test_once")
    assert runs_of(tmp_path, "test_always") == 2


def test_one_that_is_skipped_the_second_time_fails_the_run(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "passes", "skips")
    assert status == 1
    assert not [line for line in lines if line.startswith("FLAKY")]


@pytest.mark.parametrize(("name", "test"), [("crash", "test_crash"), ("hangs", "test_hangs")])
def test_a_crash_and_a_test_that_hangs_fail_the_run(tmp_path: Path, name: str, test: str) -> None:
    status, lines = run(tmp_path, "passes", name)
    assert status != 0
    assert not [line for line in lines if "again, alone" in line]
    assert runs_of(tmp_path, test) == 1


def test_many_failures_are_not_run_again(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "many")
    assert status == 1
    assert not [line for line in lines if "again, alone" in line]
