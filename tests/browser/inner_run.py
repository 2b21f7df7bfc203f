"""Pytest run of the repository's test files inside the browser."""

import json
import os
import sys

import pytest

ROOT = "/repository"


class Reports:
    """What each test came to: of its three phases the worst."""

    def __init__(self, collect_only):
        self.found = {}
        self._collect_only = collect_only

    def pytest_collection_modifyitems(self, config, items):
        """The same choice as outside: what is marked `native` is not for here."""
        items[:] = [item for item in items if item.get_closest_marker("native") is None]
        if self._collect_only:
            self.found = {item.nodeid: ["collected", 0, ""] for item in items}

    def pytest_collectreport(self, report):
        if report.failed:
            self.found[report.nodeid] = ["failed", 0, str(report.longrepr)]

    def pytest_runtest_logreport(self, report):
        outcome, seconds, why = self.found.get(report.nodeid, ("passed", 0, ""))
        if report.outcome != "passed":
            outcome, why = report.outcome, f"{why}{report.when}:\n{report.longreprtext}\n"
        self.found[report.nodeid] = [outcome, seconds + report.duration, why]


def run(nodes, collect_only):
    """A JSON text of {node id: [outcome, seconds, what went wrong]}."""
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    reports = Reports(collect_only)
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    pytest.main([*options, *["--collect-only"] * collect_only, *nodes], plugins=[reports])
    return json.dumps(reports.found)
