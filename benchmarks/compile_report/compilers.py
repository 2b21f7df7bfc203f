"""Compilers of the report: Tint (WGSL to SPIR-V) and Mesa's RADV (SPIR-V to machine code)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compile_report.variants import Variant

FAMILIES = {"navi21": "RDNA 2", "vega10": "GCN 5", "gfx1100": "RDNA 3"}
HERE = Path(__file__).parent
NEEDS = (
    "it needs Mesa 22.3's RADV, spirv-as, Node with the packages of package.json, Chromium's "
    "SwiftShader and PyPI's vulkan: apt-get install mesa-vulkan-drivers spirv-tools nodejs npm "
    "chromium; npm ci; pip install vulkan"
)
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")  # of Debian's Chromium
_STATS = {
    "vgprs": "VGPRs",
    "sgprs": "SGPRs",
    "spilled_vgprs": "Spilled VGPRs",
    "spilled_sgprs": "Spilled SGPRs",
    "scratch_bytes": "Scratch size",
    "shared_bytes": "LDS size",
    "waves": "Subgroups per SIMD",
    "instructions": "Instructions",
}
# Vector loads of memory, and their bytes: RDNA 3 names them by bits.
_LOAD = re.compile(r"\b(?:buffer|global)_load_(\w+)")
_BYTES = {
    "dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "ubyte": 1,
    "b128": 16, "b96": 12, "b64": 8, "b32": 4, "u16": 2, "u8": 1,
}  # fmt: skip


class CompilerError(Exception):
    """A compiler is missing or rejects a kernel."""


def check_installed() -> None:
    """Raise `CompilerError` if a compiler is missing."""
    try:
        import vulkan  # noqa: F401
    except ImportError as error:
        raise CompilerError(f"no PyPI package vulkan ({error}): {NEEDS}") from None
    for program in ("node", "spirv-as"):
        if shutil.which(program) is None:
            raise CompilerError(f"no {program}: {NEEDS}")
    if not SWIFTSHADER.exists():
        raise CompilerError(f"no {SWIFTSHADER}: {NEEDS}")


def to_spirv(variants: Sequence[Variant], folder: Path) -> list[dict[str, Any]]:
    """Write SPIR-V of ``variants`` into ``folder`` → for each: path, entry, bindings, threads."""
    kernels = [{"code": one.source, "constants": one.constants} for one in variants]
    run = subprocess.run(
        ["node", str(HERE / "to_spirv.mjs")],
        input=json.dumps(kernels),
        capture_output=True,
        text=True,
        env={**os.environ, "VK_ICD_FILENAMES": str(SWIFTSHADER)},
    )
    dumps = re.split(r"^=== \d+$", run.stdout, flags=re.M)[1:]
    if len(dumps) != len(kernels):
        raise CompilerError(f"Tint failed: {run.stdout[-500:]}{run.stderr[-500:]}")
    return [_assembled(one, dump, folder) for one, dump in zip(variants, dumps, strict=True)]


def _assembled(variant: Variant, dump: str, folder: Path) -> dict[str, Any]:
    begin = dump.find("; SPIR-V")
    if begin < 0 or "\n=== error" in dump:
        raise CompilerError(f"Tint rejects {variant.label}: {dump[-500:]}")
    text = re.split(r"^(?:error|info|warning|=== error)", dump[begin:], flags=re.M)[0]
    entry = re.search(r'OpEntryPoint GLCompute %\S+ "([^"]+)"', text)
    size = re.search(r"LocalSize (\d+) (\d+) (\d+)", text)
    assert entry is not None and size is not None
    path = folder / f"{variant.hash}.spv"
    command = ["spirv-as", "--target-env", "vulkan1.2", "-", "-o", str(path)]
    subprocess.run(command, input=text, text=True, check=True)
    # All indices up to the last: RADV 22.3 crashes on a layout with a gap.
    uniform = variant.signature.uniform
    last = max(uniform, *(index for index, _ in variant.signature.bindings.values()))
    bindings = {str(i): "uniform" if i == uniform else "storage" for i in range(last + 1)}
    x, y, z = map(int, size.groups())
    return {"path": str(path), "entry": entry[1], "bindings": bindings, "threads": x * y * z}


def compiled(shaders: Sequence[dict[str, Any]], family: str) -> list[str]:
    """Return RADV's output for each of ``shaders`` on a GPU of ``family``."""
    given = [{key: one[key] for key in ("path", "entry", "bindings")} for one in shaders]
    environment = {
        **os.environ,
        "RADV_FORCE_FAMILY": family,
        "RADV_DEBUG": "shaders,shaderstats,nocache",
        "NODEVICE_SELECT": "1",
    }
    environment.pop("VK_ICD_FILENAMES", None)
    run = subprocess.run(
        [sys.executable, str(HERE / "radv.py")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment,
    )
    if run.returncode:
        raise CompilerError(f"RADV for {family} failed: {run.stderr[-500:]}")
    texts: list[str] = json.loads(run.stdout)
    return texts


def figures_of(text: str) -> dict[str, Any]:
    """Return registers, spills, occupancy and loads by bytes from RADV's output."""
    found: dict[str, Any] = {}
    for key, name in _STATS.items():
        match = re.search(rf"^{name}: (\d+)", text, re.M)
        if match is None:
            raise CompilerError(f"RADV printed no {name!r}: another version of Mesa?")
        found[key] = int(match[1])
    code = text[text.rfind("disasm:") :]
    loads: dict[str, int] = {}
    for kind in _LOAD.findall(code):
        if kind in _BYTES:
            loads[str(_BYTES[kind])] = loads.get(str(_BYTES[kind]), 0) + 1
    found["loads"] = loads
    return found


def mesa_version() -> str:
    """Return the version of Mesa's Vulkan drivers, as Debian names it; "" if unknown."""
    command = ["dpkg-query", "-W", "-f=${Version}", "mesa-vulkan-drivers"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.partition("-")[0]
    except OSError:
        return ""
