"""Parts of a measurement: each has a time budget, and is cut when it overruns."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.plan import Plan
from gpt2_wgpu.errors import BenchmarkError, GPT2WGPUError

GRACE = 60  # seconds beyond its budget after which a part that does not answer ends the program

Section = dict[str, Any]


class WrongResultsError(Exception):
    """The adapter computes wrong numbers: no speed is shown."""


class OutOfTimeError(Exception):
    """The part has used its budget."""


@dataclass
class Context:
    """State of a measurement; ``report``: the results so far, by part."""

    plan: Plan
    device: gw.Device
    report: dict[str, Any]
    torch_python: str | None = None
    keep_going: bool = False  # also where tests of kernels fail
    browsers: tuple[str, ...] = ()  # programs
    site: Path = Path("dist")  # made by `make site`
    deadline: float = 0.0
    compile_seconds: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print progress."""
        print(f"gpu: {text}", file=sys.stderr, flush=True)

    @property
    def left(self) -> float:
        """Seconds left of the running part."""
        return self.deadline - time.perf_counter()

    def tick(self, _: str) -> None:
        """Take a line of progress of a longer measurement: a time to check the budget."""
        self.check_time()

    def check_time(self) -> None:
        """Raise `OutOfTimeError` if the part has used its budget: call it between measurements."""
        if self.left <= 0:
            raise OutOfTimeError


def run_part(
    context: Context,
    name: str,
    part: Callable[[Context, Section], None],
    give_up: Callable[[], Any],
) -> None:
    """Run a part, which fills its section of the report.

    A part that overruns ends at its next `check_time` and keeps its results; after `GRACE` more
    seconds (a driver that never answers) ``give_up()`` saves the report and the program ends.
    """
    budget = context.plan.budgets[name]
    section: Section = context.report.setdefault("parts", {}).setdefault(name, {})
    begun = time.perf_counter()
    context.deadline = begun + budget
    context.say(f"{name} (at most {budget} s)")

    def stuck() -> None:
        section["cut"] = f"no answer {budget + GRACE} s after its begin; the program ended"
        give_up()
        os._exit(1)

    watch = threading.Timer(budget + GRACE, stuck)
    watch.daemon = True
    watch.start()
    try:
        part(context, section)
    except OutOfTimeError:
        section["cut"] = f"after {budget} s; what was measured by then is here"
        context.say(f"{name} was cut after {budget} s")
    except BenchmarkError as error:  # wrong tokens
        raise WrongResultsError(str(error)) from None
    except GPT2WGPUError as error:
        section["error"] = str(error)
        context.say(f"{name}: {error}")
    finally:
        watch.cancel()
        section["seconds"] = round(time.perf_counter() - begun, 2)


def attempted(section: Section, key: str, work: Callable[[], Any]) -> None:
    """Store ``work()`` under ``key``, or the reason why it is impossible here (memory, limits)."""
    try:
        section[key] = work()
    except BenchmarkError:
        raise
    except GPT2WGPUError as error:
        section[key] = {"error": str(error)}
