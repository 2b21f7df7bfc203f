"""The site's pyodide-lock.json: what `build_site.py` writes with Pyodide's own tools.

On Python 3.12 and newer that is the command `pyodide lockfile add-wheels`, which comes with
pyodide-build. pyodide-build needs that Python: on 3.11 the function behind the command is called,
of the pyodide-lock that still runs there (0.1). Both give the same bytes, as a test shows.
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

# Fields of the file that releases of pyodide-lock treat differently, and Pyodide does not read.
TOOL = "tool"  # what tools noted: empty; 0.1 refuses it
VERSION = "version"  # of Pyodide, deprecated: 0.1 requires it, 0.2 leaves it out


class NoToolError(Exception):
    """The tools are not installed."""


def lock(original: Path, wheels: Sequence[Path], folder: str = "../wheels/") -> bytes:
    """Pyodide's lock file with `wheels` as its only packages; they lie in `folder`, from the file.

    Raises `NoToolError` without pyodide-lock, `CalledProcessError` when the command fails, among
    others for a wheel whose requirements are not among `wheels`.
    """
    write = by_pyodide_build if has_pyodide_build() else by_pyodide_lock
    given = json.loads(original.read_text(encoding="utf-8"))
    given["packages"] = {}  # they are on another server
    given["info"][VERSION] = ""
    given.pop(TOOL, None)
    with tempfile.TemporaryDirectory() as temporary:
        source, result = (Path(temporary, name) for name in ("lock.json", "lock-new.json"))
        source.write_text(json.dumps(given), encoding="utf-8")
        # Both tools name wheels by their paths below one folder.
        write(source, result, [Path(shutil.copy(wheel, temporary)) for wheel in wheels], folder)
        return _normalised(json.loads(result.read_text(encoding="utf-8")))


def has_pyodide_build() -> bool:
    """Whether this Python has a pyodide-build whose command knows this Pyodide's lock file."""
    return sys.version_info >= (3, 12) and find_spec("pyodide_build") is not None


def by_pyodide_build(source: Path, result: Path, wheels: Sequence[Path], folder: str) -> None:
    """The command line of pyodide-build."""
    command = [sys.executable, "-m", "pyodide_cli", "lockfile", "add-wheels"]
    options = [f"--input={source}", f"--output={result}", f"--wheel-url={folder}"]
    subprocess.run([*command, *options, *wheels], check=True, capture_output=True, text=True)


def by_pyodide_lock(source: Path, result: Path, wheels: Sequence[Path], folder: str) -> None:
    """The function that the command calls."""
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
    """The same bytes from every release of pyodide-lock."""
    found["info"].pop(VERSION, None)
    for entry in (found, *found["packages"].values()):
        entry.pop(TOOL, None)
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
