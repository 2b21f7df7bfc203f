"""The JavaScript of the site passes TypeScript's strict checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typescript"
TYPESCRIPT = "typescript@7.0.2"
NO_NPM = "npm is needed to check the types of web/*.js: install Node.js 20 or newer"


@pytest.fixture(scope="session")
def tsc() -> Path:
    """TypeScript's compiler, installed once beside the other build outputs."""
    folder = HERE.parents[2] / "build" / "typescript"
    found = folder / "node_modules" / ".bin" / "tsc"
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.exit(NO_NPM, returncode=1)
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), TYPESCRIPT]
        subprocess.run(command, check=True, cwd=folder)
    return found


@pytest.mark.parametrize("program", ["page", "worker"])
def test_types(tsc: Path, program: str) -> None:
    done = subprocess.run([tsc, "-p", HERE / f"{program}.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
