"""`generate --memory`: the split of GPU memory at its peak."""

from __future__ import annotations

import json
import re
import subprocess

from tests.cli.conftest import COMMAND

ARGUMENTS = ["generate", "--greedy", "-n", "200", "--memory", "--dtype", "f16", "The king"]


def test_the_split_is_told_on_stderr(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, *ARGUMENTS], capture_output=True, text=True, env=environment, check=True
    )
    (line,) = [line for line in done.stderr.splitlines() if "GPU memory" in line]
    found = {kind: float(size) for kind, size in re.findall(r"(\w+) ([\d.]+) MiB", line)}
    assert found.keys() == {"total", "weights", "cache", "workspace", "staging", "parameters"}
    assert found["weights"] > 10
    assert found["cache"] > 1
    total = found.pop("total")
    assert abs(sum(found.values()) - total) < 0.31  # six figures, rounded


def test_json_has_bytes(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, *ARGUMENTS, "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    split = json.loads(done.stdout.splitlines()[-1])["memory"]
    total = split.pop("total")
    assert sum(split.values()) == total
    quiet = subprocess.run(
        [*COMMAND, *ARGUMENTS, "-q"], capture_output=True, text=True, env=environment, check=True
    )
    assert quiet.stderr == ""
