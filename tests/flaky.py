"""Runs a failed test once more, alone and at the end of a run: `pytest -p tests.flaky`.

A run whose failed tests all pass then passes, too. Its last lines are `FLAKY: <test>`, as are those
of build/flaky.txt. A crash, a test that hangs, an error of collection and more failures than MOST
fail the run at once.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

MOST = 10  # failed tests; more have a cause in common


class Reruns:
    """The tests that failed, and those of them that passed when they ran again."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: dict[str, None] = {}  # in the order of the run
        self._flaky: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.TESTS_FAILED or session.shouldfail:
            return
        if not self._failed or len(self._failed) > MOST:
            return
        self._flaky = [test for test in self._failed if self._passes_alone(test)]
        if len(self._flaky) == len(self._failed):
            session.exitstatus = pytest.ExitCode.OK

    def pytest_unconfigure(self) -> None:
        lines = "".join(f"FLAKY: {test}\n" for test in self._flaky)
        if lines:
            print(lines, end="", flush=True)
            notes = self._config.rootpath / "build" / "flaky.txt"
            notes.parent.mkdir(exist_ok=True)
            with notes.open("a", encoding="utf-8") as file:
                file.write(lines)

    def _passes_alone(self, test: str) -> bool:
        print(f"\nagain, alone: {test}", flush=True)
        hang = ("faulthandler_timeout", "faulthandler_exit_on_timeout")
        options = [f"-o{name}={self._config.getini(name)}" for name in hang]
        gpu = self._config.getoption("--gpu", None)
        options += [f"--gpu={gpu}"] if gpu else []
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, test]
        run = subprocess.run(command, cwd=self._config.rootpath, capture_output=True, text=True)
        print(run.stdout + run.stderr, flush=True)
        return run.returncode == 0 and re.search(r"^=+ 1 passed", run.stdout, re.M) is not None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reruns(config))
