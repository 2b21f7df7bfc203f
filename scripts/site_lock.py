"""The site's pyodide-lock.json, written with Pyodide's own tools.

On Python 3.12 and newer the tool is `pyodide lockfile add-wheels` of pyodide-build. On 3.11, which
pyodide-build does not support, the function behind that command is called in pyodide-lock 0.1. A
test checks that both give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Fields that differ between releases of pyodide-lock, and that Pyodide does not read.
TOOL = "tool"  # notes of tools, empty; 0.1 rejects it
VERSION = "version"  # of Pyodide, deprecated: 0.1 requires it, 0.2 omits it


class NoToolError(Exception):
    """The tools are not installed."""


def lock(original: Path, wheels: Sequence[Path], folder: str = "../wheels/") -> bytes:
    """Return Pyodide's lock file with `wheels` as its only packages.

    Args:
        original: Pyodide's own lock file.
        wheels: the packages.
        folder: folder of the wheels, relative to the lock file.

    Raises:
        NoToolError: pyodide-lock is not installed.
        CalledProcessError: the command fails, e.g. for a wheel whose requirements are missing.
    """
    write = by_pyodide_build if has_pyodide_build() else by_pyodide_lock
    given = json.loads(original.read_text(encoding="utf-8"))
    given["packages"] = {}  # hosted elsewhere
    given["info"][VERSION] = ""
    given.pop(TOOL, None)
    with tempfile.TemporaryDirectory() as temporary:
        source, result = (Path(temporary, name) for name in ("lock.json", "lock-new.json"))
        source.write_text(json.dumps(given), encoding="utf-8")
        # Both tools write paths of wheels relative to one folder.
        write(source, result, [Path(shutil.copy(wheel, temporary)) for wheel in wheels], folder)
        return _normalised(json.loads(result.read_text(encoding="utf-8")))


def has_pyodide_build() -> bool:
    """Return whether pyodide-build is installed and supports this Pyodide's lock file."""
    return sys.version_info >= (3, 12) and find_spec("pyodide_build") is not None


def by_pyodide_build(source: Path, result: Path, wheels: Sequence[Path], folder: str) -> None:
    """Run the command line of pyodide-build."""
    command = [sys.executable, "-m", "pyodide_cli", "lockfile", "add-wheels"]
    options = [f"--input={source}", f"--output={result}", f"--wheel-url={folder}"]
    subprocess.run([*command, *options, *wheels], check=True, capture_output=True, text=True)


def by_pyodide_lock(source: Path, result: Path, wheels: Sequence[Path], folder: str) -> None:
    """Call the function behind the command."""
    try:
        from pyodide_lock import PyodideLockSpec
        from pyodide_lock.utils import add_wheels_to_spec
    except ImportError:
        raise NoToolError(
            "pyodide-lock is not installed; run 'make site', or "
            f"'{sys.executable} -m pip install \"pyodide-lock[wheel]\"'"
        ) from None
    spec = PyodideLockSpec.from_json(source)
    add_wheels_to_spec(spec, list(wheels), base_url=folder).to_json(result)


def _normalised(found: dict[str, dict[str, Any]]) -> bytes:
    """Return a lock file with the same bytes for every release of pyodide-lock."""
    found["info"].pop(VERSION, None)
    for entry in (found, *found["packages"].values()):
        entry.pop(TOOL, None)
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
