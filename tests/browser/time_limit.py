"""Time limit of each browser test: past it, its browsers end, and with them what it waits for.

Playwright waits without a limit for a promise of JavaScript's. A test whose promise never settles
fails in this way, and the next one gets new fixtures: else it would take the whole run with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Generator
from contextlib import suppress
from threading import Timer
from typing import Any

import pytest

LIMIT_S = 300.0  # seconds, with fixtures, on a busy machine
BROWSERS = re.compile(r"chrom|firefox", re.IGNORECASE)

_over = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    marker = item.get_closest_marker("time_limit")
    seconds = marker.args[0] if marker else LIMIT_S
    timer = Timer(seconds, _end, [item, seconds])
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """After a limit, fixtures of any scope are torn down: their browsers have ended."""
    result = yield
    if item.stash.get(_over, False):
        item.session._setupstate.teardown_exact(None)
    return result


def _end(item: pytest.Item, seconds: float) -> None:
    item.stash[_over] = True
    ended = [pid for pid, name in descendants(os.getpid()).items() if BROWSERS.search(name)]
    note = f"not done within {seconds:g} s: {len(ended)} processes of browsers were ended\n"
    item.add_report_section("call", "time limit", note)
    for pid in ended:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(ancestor: int) -> dict[int, str]:
    """The names of all processes that this one, or one of them, started."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, dict[int, str]] = {}
    for line in listing.splitlines():
        pid, parent, name = line.split(None, 2)
        children.setdefault(int(parent), {})[int(pid)] = name
    found: dict[int, str] = {}
    unvisited = [ancestor]
    while unvisited:
        born = children.get(unvisited.pop(), {})
        found |= born
        unvisited += born
    return found
