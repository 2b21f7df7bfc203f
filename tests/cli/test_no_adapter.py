"""Commands without a GPU adapter: a one-line error and a failing exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "command", [["doctor"], ["generate", "Once"], ["score", "Once"], ["bench"]]
)
def test_one_line_and_a_failure(command: list[str]) -> None:
    nowhere = {"VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}
    ran = subprocess.run(
        [sys.executable, "-m", "gpt2_wgpu", *command],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("gpt2-wgpu: error: no GPU adapter found: ")
    assert "Traceback" not in ran.stdout
    if command == ["doctor"]:
        assert "none: no GPU adapter found: " in ran.stdout
        assert "fairytales" in ran.stdout
