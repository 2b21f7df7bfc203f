"""The committed report: JSON for programs and tests, Markdown for readers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compile_report.variants import Variant

FORMAT = 1
# Mesa 22.3's compiler for RDNA 3 keeps up to 16 of 192 registers in memory where seven or eight
# rows meet q8 or q4 weights behind a norm; other families do not. Nothing else may spill.
ALLOWED_SPILLS = {("linear_gemv", "gfx1100"): 16}
# Scalar registers kept in lanes of a vector register: no memory is read.
ALLOWED_SCALAR_SPILLS = {
    ("sample", "navi21"): 8,
    ("sample", "vega10"): 24,
    ("sample", "gfx1100"): 8,
}
JSON = Path(__file__).with_name("report.json")
MARKDOWN = Path(__file__).with_name("report.md")
COMMAND = "python -m benchmarks.compile_report"

Report = dict[str, Any]

_INTRODUCTION = f"""\
# What a GPU's compiler makes of the kernels

Written by `{COMMAND}` ([README](../README.md)); `report.json` has the same
figures. A cell has one figure for each family of AMD GPUs, in this order, or one for all:
{{families}}. Mesa {{mesa}}, WGSL by Tint. Nothing ran, so nothing was timed.

- *VGPRs*: vector registers of a thread. *Waves*: subgroups that a SIMD can hold at once, by
  registers and workgroup memory. *LDS*: bytes of workgroup memory. *Spills*: registers in memory.
- *Loads*: vector loads of 16 bytes / of all sizes in the machine code (loops count once; what is
  uniform in a subgroup is loaded by scalar instructions and not counted).
"""


def load() -> Report:
    """Read the committed report; one without rows if there is none."""
    if not JSON.exists():
        return {"format": FORMAT, "mesa": "", "families": {}, "rows": []}
    found: Report = json.loads(JSON.read_text())
    return found


def write(report: Report) -> None:
    """Write both files."""
    head = {key: value for key, value in report.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row) for row in report["rows"])
    text = json.dumps(head)[:-1] + ', "rows": [\n' + rows + "\n]}\n"
    JSON.write_text(text)
    MARKDOWN.write_text(as_markdown(report))


def row_of(variant: Variant, threads: int, figures: dict[str, Any]) -> Report:
    """Return the row of a variant; ``figures``: of each family."""
    return {
        "kernel": variant.label,
        "hash": variant.hash,
        "threads": threads,
        "wide_bindings": variant.wide_bindings,
        "uses": variant.uses[:2],
        "families": figures,
    }


def outdated(report: Report, variants: Sequence[Variant]) -> tuple[list[Variant], list[str]]:
    """Return the variants that lack a row, and the labels of rows that no variant has."""
    rows = {(row["kernel"], row["hash"]) for row in report["rows"]}
    missing = [one for one in variants if (one.label, one.hash) not in rows]
    known = {one.label for one in variants}
    return missing, [row["kernel"] for row in report["rows"] if row["kernel"] not in known]


def defects(report: Report) -> list[str]:
    """Return what the test rejects: spills, and kernels without the 16-byte loads of their code."""
    found = []
    for row in report["rows"]:
        for family, figures in row["families"].items():
            where = f"{row['kernel']} on {family}"
            allowed = ALLOWED_SPILLS.get((row["kernel"].split()[0], family), 0)
            many_rows = re.search(r" TOKENS=[78] ", row["kernel"]) is not None
            few = 0 < figures["spilled_vgprs"] <= allowed and many_rows
            scalars = ALLOWED_SCALAR_SPILLS.get((row["kernel"].split()[0], family), 0)
            kinds = ("spilled_vgprs", "spilled_sgprs", "scratch_bytes")
            for kind in kinds[1:2] if few else kinds:
                most = scalars if kind == "spilled_sgprs" else 0
                found += [f"{where}: {kind} {figures[kind]}"] if figures[kind] > most else []
            if row["wide_bindings"] and not figures["loads"].get("16"):
                found.append(f"{where}: no load of 16 bytes, but {figures['loads']}")
    return found


def as_markdown(report: Report) -> str:
    """Return the table."""
    families = ", ".join(f"{name} ({what})" for name, what in report["families"].items())
    columns = ("kernel", "threads", "VGPRs", "spills", "waves", "LDS", "loads", "for example")
    lines = [columns, ["---"] * len(columns)]
    for row in report["rows"]:
        each = list(row["families"].values())
        cells = (
            [str(one["vgprs"]) for one in each],
            [str(one["spilled_vgprs"] + one["spilled_sgprs"]) for one in each],
            [str(one["waves"]) for one in each],
            [str(one["shared_bytes"]) for one in each],
            [f"{one['loads'].get('16', 0)}/{sum(one['loads'].values())}" for one in each],
        )
        inner = [cell[0] if len({*cell}) == 1 else " ".join(cell) for cell in cells]
        lines.append((row["kernel"], str(row["threads"]), *inner, row["uses"][0]))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{_INTRODUCTION.format(families=families, mesa=report['mesa'])}\n{table}\n"
