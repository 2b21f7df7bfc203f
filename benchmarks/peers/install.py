"""Installation of the peers, at pinned versions, into a folder outside the checkout.

Python packages are installed into virtual environments, the browser's by npm. A stamp file holds
the pins: only changed pins are installed again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
MAIN, WEBGPU = "venv", "venv-webgpu"
_PINS = {MAIN: "requirements.txt", WEBGPU: "requirements-webgpu.txt"}


def default_cache() -> Path:
    """Return the default of ``--cache``, the folder of peers and prepared models."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt2-wgpu" / "peers"


def python_of(cache: Path, name: str = MAIN) -> Path:
    """Return the interpreter of an environment."""
    return cache / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install_python(cache: Path, name: str) -> None:
    """Install the pinned requirements of the environment ``name`` in ``cache``."""
    pins = HERE / _PINS[name]
    stamp = cache / f"{name}.stamp"
    if _stamped(stamp, pins):
        return
    print(f"installing {pins.name} into {cache / name}", file=sys.stderr)
    venv.create(cache / name, clear=True, with_pip=True)
    pip = [str(python_of(cache, name)), "-m", "pip", "install", "--quiet", "-r", str(pins)]
    _run(pip)
    stamp.write_text(pins.read_text())


def install_npm(cache: Path) -> Path:
    """Install the pins of package.json into ``cache``/npm; return its node_modules."""
    folder, pins = cache / "npm", HERE / "package.json"
    if not _stamped(cache / "npm.stamp", pins):
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("npm is needed for the browser's peers: install Node.js, try again")
        print(f"installing {pins.name} into {folder}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(pins, folder)
        # No install scripts: they fetch native binaries, and only browser files are wanted.
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        (cache / "npm.stamp").write_text(pins.read_text())
    return folder / "node_modules"


def _stamped(stamp: Path, pins: Path) -> bool:
    return stamp.is_file() and stamp.read_text() == pins.read_text()


def _run(command: list[str], cwd: Path | None = None) -> None:
    # Installers print to stderr: stdout is for the figures.
    done = subprocess.run(command, cwd=cwd, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"cannot install the peers: {' '.join(command)} failed")
