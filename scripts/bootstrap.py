"""Setup for `make`: a virtual environment, a graphics adapter, a browser.

    python3 scripts/bootstrap.py install DIR REQUIREMENT...   # venv in DIR, pip install there
    DIR/bin/python scripts/bootstrap.py adapter               # a driver, where wgpu finds none
    DIR/bin/python scripts/bootstrap.py browser               # Chromium, Firefox, Node, packages
                                                              # of both, Pyodide's clients' wheels

Standard library only, and no syntax newer than Python 3.8: the first command runs before anything
is installed and reports an old Python. On Debian and derivatives, missing system packages are
installed with apt-get; on other systems a message names them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

# wgpu also lists OpenGL adapters, which do not support the compute shaders.
BACKENDS = frozenset({"Vulkan", "Metal", "D3D12"})

# Wheels loaded by Pyodide's other clients, and the folder where their tests expect them.
CLIENT_WHEELS = Path("tests/browser/clients/wheels.txt")
CLIENT_FOLDER = Path("build/clients")

NO_ADAPTER = (
    "wgpu finds no Vulkan, Metal or D3D12 adapter. Install the driver of your GPU, or Mesa's "
    "software driver: 'apt-get install mesa-vulkan-drivers' (Debian, Ubuntu), "
    "'dnf install mesa-vulkan-drivers' (Fedora), 'pacman -S vulkan-swrast' (Arch); on macOS "
    "(Metal) and Windows (D3D12) it comes with the system."
)

NO_CHROMIUM = (
    "the browser tests need Chromium. Install it: 'apt-get install chromium' (Debian), "
    "'dnf install chromium' (Fedora), 'pacman -S chromium' (Arch), or Google Chrome."
)

NO_FIREFOX = (
    "the tests in Firefox need Firefox 141 or newer. Install it: 'apt-get install firefox-esr' "
    "(Debian), 'snap install firefox' (Ubuntu), 'dnf install firefox' (Fedora), "
    "'pacman -S firefox' (Arch)."
)

NO_CLIENT_WHEELS = (
    f"the tests of Pyodide's clients need the wheels of {CLIENT_WHEELS}: run "
    "'python scripts/bootstrap.py browser'."
)

NO_NODE = (
    "the browser tests need Node 20 or newer with npm, and the packages of package.json. Install "
    "them: 'apt-get install nodejs npm' (Debian, Ubuntu), then 'npm ci'."
)


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit status."""
    if argv[:1] == ["install"] and len(argv) > 2:
        return install(Path(argv[1]), argv[2:])
    if argv == ["adapter"]:
        return ensure_adapter()
    if argv == ["browser"]:
        return ensure_browser()
    print(__doc__, file=sys.stderr)
    return 2


def install(directory: Path, requirements: list[str]) -> int:
    """Create a virtual environment in `directory`, unless it works, and install requirements."""
    if sys.version_info < (3, 11):  # noqa: UP036 - `make` runs this with the system's python3
        found = ".".join(map(str, sys.version_info[:2]))
        return fail(
            f"Python 3.11 or newer is needed, this is {found}; try 'make PYTHON=python3.12'"
        )
    if not _imports("ensurepip"):  # a separate package on Debian
        package = f"python{'.'.join(map(str, sys.version_info[:2]))}-venv"
        say(f"this Python cannot make virtual environments: installing {package}")
        if not _apt_install(package):
            return fail(f"cannot make a virtual environment: install {package} and try again")
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not _runs([str(python), "-m", "pip", "--version"]):
        venv.create(directory, clear=True, with_pip=True)
    say(f"installing {' '.join(requirements)} into {directory}")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*pip, *requirements], check=False).returncode


def ensure_adapter() -> int:
    """Install Mesa's software Vulkan driver if wgpu finds no adapter and apt-get exists."""
    if find_adapter():
        return 0
    package = "mesa-vulkan-drivers"
    if shutil.which("apt-get"):
        say(f"no graphics adapter found: installing {package} (Mesa's software Vulkan driver)")
        if _apt_install(package) and find_adapter():
            return 0
    return fail(NO_ADAPTER)


def ensure_browser() -> int:
    """Install the browser tests' dependencies: browsers, Node (with apt-get), packages, wheels."""
    if find_chromium() is None:
        say("no Chromium found: installing chromium")
        if not _apt_install("chromium") or find_chromium() is None:
            return fail(NO_CHROMIUM)
    if find_firefox() is None:
        say("no Firefox found: installing firefox-esr")
        if not _apt_install("firefox-esr") or find_firefox() is None:
            say(f"WARNING: the tests in Firefox are SKIPPED: {NO_FIREFOX}")
    if shutil.which("npm") is None:
        say("no npm found: installing nodejs and npm")
        if not _apt_install("nodejs", "npm") or shutil.which("npm") is None:
            return fail(NO_NODE)
    return install_node_packages() or download_wheels()


def install_node_packages() -> int:
    """Install the packages of package.json unless installed; return the exit status."""
    wanted, present = Path("package-lock.json"), Path("node_modules/.package-lock.json")
    if present.exists() and present.stat().st_mtime >= wanted.stat().st_mtime:
        return 0
    say("installing the packages of package.json into node_modules")
    command = ["npm", "ci", "--ignore-scripts", "--silent"]
    return subprocess.run(command, check=False).returncode


def download_wheels() -> int:
    """Download the wheels of CLIENT_WHEELS unless downloaded; return the exit status."""
    done = CLIENT_FOLDER / CLIENT_WHEELS.name
    if done.exists() and done.read_bytes() == CLIENT_WHEELS.read_bytes():
        return 0
    say(f"downloading the wheels of {CLIENT_WHEELS} into {CLIENT_FOLDER}")
    shutil.rmtree(CLIENT_FOLDER, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pure = ["--implementation=py", "--abi=none", "--platform=any", "--only-binary=:all:"]
    what = ["--no-deps", "--require-hashes", "--python-version=3.14", "-r", str(CLIENT_WHEELS)]
    command = [*pip, *pure, *what, "--dest", str(CLIENT_FOLDER)]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        shutil.copy(CLIENT_WHEELS, done)
    return status


def find_adapter() -> str | None:
    """Return the name of the first adapter that can compute, or None.

    Runs in a new process: one that loaded Vulkan before a driver was installed never finds it.
    """
    probe = (
        "import wgpu\n"
        "for adapter in wgpu.gpu.enumerate_adapters_sync():\n"
        "    print(adapter.info['backend_type'], adapter.info['device'], sep='\\t')\n"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    if found.returncode != 0:
        raise SystemExit(f"cannot ask wgpu for adapters:\n{found.stderr}")
    for line in found.stdout.splitlines():
        backend, _, name = line.partition("\t")
        if backend in BACKENDS:
            return name
    return None


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def find_firefox() -> str | None:
    """Return the path of Firefox, or None."""
    return next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)


def _apt_install(*packages: str) -> bool:
    apt = shutil.which("apt-get")
    if apt is None:
        return False
    command = ["env", "DEBIAN_FRONTEND=noninteractive", apt, "-qq", "-y"]
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None:
            return False
        command = [sudo, *command]
    # Ignore failures of the update, e.g. one stale source of many; only the installation counts.
    for step in (["update"], ["install", "--no-install-recommends", *packages]):
        done = subprocess.run([*command, *step], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(f"apt-get cannot install {' '.join(packages)}:\n{done.stderr.strip()}")
    return done.returncode == 0


def _imports(module: str) -> bool:
    return _runs([sys.executable, "-c", f"import {module}"])


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def say(message: str) -> None:
    """Print progress to stderr."""
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Print an error to stderr; return the exit status."""
    print(f"bootstrap: error: {message}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
