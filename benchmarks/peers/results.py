"""Results of a run: one JSON object in the format of draw.py, and a table."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import Outcome, Plan, median
from benchmarks.peers.models import Work, first_other_token

_ABOUT_THE_GPU = ("adapter", "driver", "software")


def report(
    outcomes: list[Outcome], work: Work, plan: Plan, versions: dict[str, str]
) -> dict[str, Any]:
    """Return the JSON object of one run."""
    about = {key: value for outcome in outcomes for key, value in outcome.versions.items()}
    versions = {**versions, "Python": platform.python_version(), "commit": _commit()}
    versions |= {key: value for key, value in about.items() if key not in _ABOUT_THE_GPU}
    foreign = [cores for outcome in outcomes for cores in outcome.foreign_cpu if cores is not None]
    name = {"124M": "random 124M"}.get(work.model, work.model)
    return {
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": ", ".join(filter(None, [about.get("adapter"), _processor()])),
        "driver": about.get("driver", ""),
        "software_adapter": bool(about.get("software")),
        "versions": versions,
        "load": {
            "loadavg": [round(value, 2) for value in os.getloadavg()],
            "foreign_cpu": round(max(foreign), 2) if foreign else None,
        },
        "work": {
            "model": name,
            "prompt_tokens": len(work.ids[0]),
            "new_tokens": plan.new_tokens,
            "batch": plan.batch,
            "repeats": plan.rounds,
            "smallest_margin": round(work.smallest_margin, 4),
        },
        "rows": [_row(outcome, plan, work) for outcome in outcomes],
    }


def _row(outcome: Outcome, plan: Plan, work: Work) -> dict[str, Any]:
    engine, note = outcome.engine, outcome.engine.note
    differs = first_other_token(work, outcome.accepted)
    if outcome.tokens and outcome.tokens < plan.new_tokens:
        note = f"{note}; {outcome.tokens} tokens a run"
    return {
        "engine": engine.label,
        "backend": engine.backend,
        "dtype": engine.dtype,
        "prefill_seconds": [round(value, 4) for value in outcome.prefill_seconds],
        "decode_tokens_per_second": [round(value, 3) for value in outcome.decode_rates],
        "equal_outputs": outcome.equal,
        "tolerance": engine.tolerance,
        "first_other_token": differs and differs[1],
        "note": note,
        "foreign_cpu": [None if c is None else round(c, 2) for c in outcome.foreign_cpu],
    }


def _commit() -> str:
    """Return the commit of this checkout, with "-dirty" if changed; empty without git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    with suppress(OSError):
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        return done.stdout.strip()
    return ""


def _processor() -> str:
    """Return the name of the CPU, with the number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def show(found: dict[str, Any]) -> None:
    """Print the table: medians, ratios to our first row, and CPU use of other processes."""
    rows = found["rows"]
    rates = [median(row["decode_tokens_per_second"]) for row in rows]
    ours = next((rate for rate in rates if rate == rate), float("nan"))
    work = found["work"]
    print(f"{work['model']}, batch {work['batch']}, on {found['hardware']}; {found['driver']}")
    head = f"{'engine':28} {'backend':7} {'dtype':5} {'first token':>12} {'decode':>14}"
    print(f"{head} {'ratio':>8} {'foreign CPU':>12}")
    for row, rate in zip(rows, rates, strict=True):
        start = f"{row['engine']:28} {row['backend']:7} {row['dtype']:5}"
        if row["equal_outputs"] is not True:
            print(f"{start} no figure: {row['equal_outputs']}")
            continue
        seconds = median(row["prefill_seconds"])
        foreign = [cores for cores in row["foreign_cpu"] if cores is not None]
        busy = f"{median(foreign):5.2f} cores" if foreign else "unknown"
        print(f"{start} {seconds:10.3f} s {rate:8.2f} tok/s {rate / ours:6.2f} x {busy:>12}")
    print(
        "ratio: decoding, to the first row that has a figure; first token: prefill and its sample"
    )
