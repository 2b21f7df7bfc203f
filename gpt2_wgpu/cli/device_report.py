"""Report on a device for `gpt2-wgpu doctor`: adapter, limits, features, versions, self-test."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import textwrap
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from gpt2_wgpu._version import __version__
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import DeviceError

if TYPE_CHECKING:
    import gpt2_wgpu as gw

# The limits that decide which models fit and which kernels run.
_LIMITS = (
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
    "max-compute-invocations-per-workgroup",
    "max-compute-workgroup-size-x",
    "max-compute-workgroup-storage-size",
    "max-compute-workgroups-per-dimension",
    "min-storage-buffer-offset-alignment",
)


def report(facts: dict[str, Any], args: argparse.Namespace, terminal: Terminal) -> int:
    """Prints `facts` and those of the device; returns the exit status.

    Raises DeviceError, after printing, if there is no device.
    """
    problem: DeviceError | None = None
    try:
        facts = facts | _device_facts(args.adapter)
    except DeviceError as error:  # report the rest all the same
        facts = facts | {"adapter": None, "error": str(error)}
        problem = error
    if args.json:
        terminal.write(json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
    else:
        terminal.write(_page(facts))
    if problem is not None:
        raise problem
    if facts["check"]["passed"]:
        return 0
    wrong = [check["name"] for check in facts["check"]["checks"] if not check["passed"]]
    terminal.error(
        f"the self-test failed: wrong results in {', '.join(wrong)}. Update the driver or use "
        "another adapter"
    )
    return 1


def versions() -> dict[str, str]:
    """Versions of Python and the required packages; 'unknown' for one without metadata."""
    found = {"gpt2-wgpu": __version__, "python": platform.python_version()}
    packages = ("wgpu", "numpy", "regex")
    return found | dict.fromkeys(packages, "unknown") | versions_of(packages)


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _device_facts(adapter: int | str | None) -> dict[str, Any]:
    import gpt2_wgpu as gw

    device = gw.Device(adapter=adapter)
    try:
        report = gw.self_check(device)
        memory = gw.memory(device)
        return {
            "adapter": _adapter(device.info),
            "limits": {name: device.limits[name] for name in _LIMITS if name in device.limits},
            "features": sorted(device.features),
            "memory": {
                "budget_bytes": memory.budget,
                "self_test_bytes": memory.peak_bytes_in_gpu,
            },
            "check": {
                "passed": report.passed,
                "checks": [
                    {
                        "name": check.name,
                        "passed": check.passed,
                        "worst_error": check.worst_error,
                        "tolerance": check.tolerance,
                        "detail": check.detail,
                    }
                    for check in report.checks
                ],
            },
        }
    finally:
        device.close()


def _adapter(info: gw.webgpu.AdapterInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "vendor": info.vendor,
        "type": info.adapter_type,
        "software": info.is_software,
        "backend": info.backend,
        "driver": info.driver,
    }


def _page(facts: dict[str, Any]) -> str:
    """The facts as readable text."""
    sections = [("versions", _table(facts["versions"] | {"system": facts["platform"]}))]
    of_machine = ("machine", "environment", "models", "adapters")
    sections += [(name, _table(facts[name])) for name in of_machine if facts.get(name)]
    if facts["adapter"] is None:
        sections.append(("adapter", textwrap.wrap(f"none: {facts['error']}", 76)))
    else:
        sections += [
            ("adapter", _table(facts["adapter"])),
            ("limits", _table(facts["limits"])),
            ("memory", _table(facts["memory"])),
            ("features", textwrap.wrap(" ".join(facts["features"]), 76, break_on_hyphens=False)),
        ]
        check = facts["check"]
        if check["passed"]:
            sections.append((f"self-test: PASS ({len(check['checks'])} checks)", []))
        else:
            sections.append(("check", _check(check)))
    blocks = ("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections)
    return "\n\n".join(blocks) + "\n"


def _table(rows: dict[str, Any]) -> list[str]:
    width = max(map(len, rows))
    return [f"{name:<{width}}  {_word(name, value)}" for name, value in rows.items()]


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith(("-size", "bytes")) and value >= 2**20:
        return f"{value} ({value / 2**20:,.0f} MiB)"
    return "unknown" if value is None else str(value)


def _check(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{'PASS' if check['passed'] else 'FAIL'}  {check['name']:<26} "
        f"worst error {check['worst_error']:.1e}, tolerance {check['tolerance']:.1e}"
        + (f": {check['detail']}" if check["detail"] and not check["passed"] else "")
        for check in report["checks"]
    ]
    return [*lines, "FAIL"]
