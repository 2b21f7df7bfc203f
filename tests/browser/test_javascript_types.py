"""The JavaScript of the site passes TypeScript's strict checks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typescript"


@pytest.mark.parametrize("program", ["library", "page", "worker", "usage"])
def test_types(node_modules: Path, program: str) -> None:
    done = subprocess.run(
        [node_modules / ".bin" / "tsc", "-p", HERE / f"{program}.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
