"""All parts in order; the report is saved after each."""

from __future__ import annotations

import argparse
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu import (
    adapter,
    browser,
    correctness,
    decode,
    micro,
    prefill,
    report,
    samplers,
    switches,
    torch_peer,
    verdict,
)
from benchmarks.gpu.parts import Context, WrongResultsError, run_part
from benchmarks.gpu.plan import PLANS, Plan
from gpt2_wgpu import nn
from gpt2_wgpu.bench import machine
from gpt2_wgpu.bench.measuring import ADAPTER

PARTS = {
    "adapter": adapter.measure,
    "correctness": correctness.measure,
    "micro": micro.measure,
    "decode": decode.measure,
    "prefill": prefill.measure,
    "samplers": samplers.measure,
    "switches": switches.measure,
    "torch": torch_peer.measure,
    "browser": browser.measure,
}
ALWAYS = ("adapter", "correctness")


def run(args: argparse.Namespace) -> int:
    """Measure as the command line says; return the exit status."""
    by_default = (name for name in PARTS if name != "browser")
    chosen = [*ALWAYS, *(args.parts.split(",") if args.parts else by_default)]
    if unknown := [name for name in chosen if name not in PARTS]:
        print(f"gpu: no part {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if args.browser:
        chosen.append("browser")
    elif "browser" in chosen:
        print("gpu: name a browser for the part browser: --browser PROGRAM", file=sys.stderr)
        return 2
    wanted = int(args.adapter) if (args.adapter or "").isdigit() else args.adapter
    try:
        device = adapter.open_device(wanted, args.software)
    except adapter.NoGPUError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    folder = report.RESULTS if args.output is None else args.output
    with device:
        plan = PLANS[args.plan]()
        found = _begun(device, args.plan, plan)
        context = Context(
            plan,
            device,
            found,
            args.torch_python,
            args.keep_going,
            tuple(args.browser),
            args.site,
        )
        return _run(context, [name for name in PARTS if name in chosen], folder)


def _run(context: Context, names: list[str], folder: Path) -> int:
    adapter.time_pipelines(context)
    found, status = context.report, 0

    def save() -> tuple[Path, Path]:
        correctness.note_compiling(context, found["parts"].setdefault("correctness", {}))
        found["verdict"] = verdict.as_rows(found)
        return report.write(found, folder)

    for name in names:
        try:
            run_part(context, name, PARTS[name], save)
        except WrongResultsError as error:
            found["wrong"] = str(error)
            for part in found["parts"].keys() - {*ALWAYS}:
                del found["parts"][part]  # no speed without right results
            context.say(f"wrong results: {error}")
            status = 1
            break
        save()
    if verdict.kernel_tests_failed(found):
        status = 1
    paths = save()
    if isinstance(sys.stdout, io.TextIOWrapper):  # Windows: a console may lack "≥"
        sys.stdout.reconfigure(errors="replace")
    print(report.as_markdown(found))
    print(f"gpu: {paths[0]} and {paths[1].name}", file=sys.stderr)
    return status


def _begun(device: gw.Device, name: str, plan: Plan) -> dict[str, Any]:
    """Return the report before the first part."""
    info = device.info
    return {
        "format": report.FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": info.name,
        "driver": info.driver,
        "software_adapter": info.is_software,
        "adapter": {key: getattr(info, key) for key in ADAPTER},
        "versions": machine.versions(),
        "plan": {
            "name": name,
            "small": plan.small.name,
            "large": plan.large.name,
            "prompt_tokens": plan.prompt_tokens,
            "new_tokens": plan.new_tokens,
            "repeats": plan.repeats,
            "budgets": plan.budgets,
            "cache_dtype": nn.default_cache_dtype(device),
        },
        "parts": {},
        "verdict": [],
    }
