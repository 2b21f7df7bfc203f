"""Wheels beside the checkout, for a machine without network and pip: unpacked into a folder."""

from __future__ import annotations

import platform
import re
import sys
import zipfile
from pathlib import Path

_SYSTEMS = {"linux": ("linux", "manylinux"), "darwin": ("macosx",), "win32": ("win",)}
_MACHINES = {
    "x86_64": ("x86_64", "amd64", "universal2"),
    "amd64": ("x86_64", "amd64", "universal2"),
    "arm64": ("arm64", "aarch64", "universal2"),
    "aarch64": ("arm64", "aarch64", "universal2"),
}


def unpack(folder: Path, into: Path) -> list[str]:
    """Unpack the wheels of ``folder`` that fit this Python and machine; return their names.

    Raises:
        FileNotFoundError: there is none.
    """
    names = []
    for path in sorted(folder.glob("*.whl")):
        if fits(path.name):
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(into)
            names.append(path.name)
    if not names:
        raise FileNotFoundError(
            f"{folder} has no wheel for Python {platform.python_version()} on {sys.platform}: fill "
            "it with `pip download` (benchmarks/README.md)"
        )
    return names


def fits(name: str) -> bool:
    """Return whether a wheel of this file name can be imported here."""
    pythons, abis, platforms = name.removesuffix(".whl").split("-")[-3:]
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    stable = "abi3" in abis and any(
        int(minor) <= sys.version_info.minor for minor in re.findall(r"cp3(\d+)", pythons)
    )
    plain = abis == "none" and any(tag in pythons.split(".") for tag in ("py3", f"cp{version}"))
    if not (stable or plain or f"cp{version}" in abis.split(".")):
        return False
    if platforms == "any":
        return True
    systems = _SYSTEMS.get(sys.platform, ())
    if not any(tag.startswith(systems) for tag in platforms.split(".")):
        return False
    machine = platform.machine().lower()
    return any(name in platforms for name in _MACHINES.get(machine, (machine,)))
