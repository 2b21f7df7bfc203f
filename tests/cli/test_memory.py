"""`generate --memory`: the split of GPU memory at its peak."""

from __future__ import annotations

import json
import re

from tests.cli.conftest import Run

ARGUMENTS = ["generate", "--greedy", "--memory", "--dtype", "f16", "--json", "The king"]


def test_the_split_is_told_on_stderr_and_in_json(run: Run) -> None:
    done = run(*ARGUMENTS, "-n", "200")
    assert done.returncode == 0
    split = json.loads(done.stdout.splitlines()[-1])["memory"]
    (line,) = [line for line in done.stderr.splitlines() if "GPU memory" in line]
    found = {kind: float(size) for kind, size in re.findall(r"(\w+) ([\d.]+) MiB", line)}
    assert found.keys() == {"total", "weights", "cache", "workspace", "staging", "parameters"}
    assert found["weights"] > 10
    assert found["cache"] > 1
    assert all(abs(split[kind] / 2**20 - size) <= 0.051 for kind, size in found.items())
    assert split.keys() == found.keys()
    total = split.pop("total")
    assert sum(split.values()) == total


def test_quiet_hides_the_line(run: Run) -> None:
    assert run(*ARGUMENTS, "-n", "1", "-q").stderr == ""
