"""The part itself: start each browser, take its figures."""

from __future__ import annotations

import queue
import shutil
from pathlib import Path
from typing import Any

from benchmarks.gpu.browser.program import running
from benchmarks.gpu.browser.serving import Reports, serving
from benchmarks.gpu.parts import Context, Section

POLL_S = 0.5  # between two looks at the browser's process
ROW = (  # keys of a row of `gpt2_wgpu.bench` that are kept
    "dtype",
    "batch",
    "seconds_per_step",
    "host_seconds_per_step",
    "time_to_first_token_seconds",
    "bandwidth_utilisation",
    "checked",
    "note",
)


def measure(context: Context, section: Section) -> None:
    """Measure in each browser; an error of one is its result and does not stop the others."""
    if not (context.site / "web" / "gpt2.js").is_file():
        section["error"] = f"no web/gpt2.js in {context.site}: 'make site', or name it (--site)"
        return
    for number, program in enumerate(context.browsers, 1):
        context.check_time()
        name = Path(program).stem
        found: Section = section.setdefault(f"{name} {number}" if name in section else name, {})
        context.say(f"decoding in {name}")
        with serving(context.site, _plan(context)) as (address, reports):
            _measure_one(context, program, address, reports, found)


def _plan(context: Context) -> list[dict[str, Any]]:
    """Return arguments of `gpt2_wgpu.bench.Plan` for each weight format."""
    plan = context.plan
    return [
        {
            "size": plan.small.name.removeprefix("random "),
            "prompt_tokens": plan.prompt_tokens,
            "new_tokens": plan.new_tokens,
            "batches": plan.browser_rows,
            "dtypes": [dtype],
            "repeats": plan.repeats,
        }
        for dtype in plan.browser_dtypes
    ]


def _measure_one(
    context: Context, program: str, address: str, reports: Reports, found: Section
) -> None:
    path = shutil.which(program)
    if path is None:
        found["error"] = f"no program {program}"
        return
    try:
        with running(path, address, context.device.info.is_software) as process:
            while not _done(context, found, _next(context, reports, process)):
                pass
    except OSError as error:
        found["error"] = f"{program} could not be started: {error}"
    except _BrowserError as error:
        found["error"] = str(error)


class _BrowserError(Exception):
    """The browser ended, or its page failed."""


def _next(context: Context, reports: Reports, process: Any) -> dict[str, Any]:
    """Return the next report of the page."""
    while True:
        try:
            return reports.get(timeout=POLL_S)
        except queue.Empty:
            if process.poll() is not None and reports.empty():
                raise _BrowserError(f"the browser ended with {process.returncode}") from None
            context.check_time()


def _done(context: Context, found: Section, report: dict[str, Any]) -> bool:
    """Add a report of the page to the browser's figures; return whether it was the last."""
    kind, value = report["kind"], report["value"]
    if kind == "error":
        raise _BrowserError(value)
    if kind == "loaded":
        found |= value
    elif kind == "measured":
        if value["software_adapter"] and not context.device.info.is_software:
            raise _BrowserError(f"the browser offers a software adapter only, {value['hardware']}")
        found |= {key: value[key] for key in ("hardware", "driver", "software_adapter")}
        rows = found.setdefault("rows", [])
        rows += [{key: row[key] for key in ROW} for row in value["rows"]]
    return bool(kind == "done")
