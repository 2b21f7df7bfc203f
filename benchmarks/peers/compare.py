"""Comparison of engines: warm-up, output check, then timed rounds. Independent of the engines.

The exception of a `Runner` is shown instead of its figures. So are wrong tokens, in a timed run or
a warm-up.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from benchmarks.peers.cpu_use import ForeignCpu
from benchmarks.peers.engines import Engine

# (seconds since the call, tokens received: a token of each row, then the next of each row, ...)
Marks = list[tuple[float, list[int]]]
PROBE = 4  # tokens of the first warm-up, which determines the length of a timed run


class EngineFailed(Exception):
    """An engine could not run; the message is shown instead of its figures."""


class Runner(Protocol):
    """Protocol of an engine with its model and its work."""

    engine: Engine

    def load(self) -> dict[str, str]:
        """Load the model and return versions by name. Raises ``EngineFailed``."""

    def run(self, count: int) -> Marks:
        """Continue each prompt by ``count`` tokens. Raises ``EngineFailed``."""


@dataclass
class Outcome:
    """Result of one engine."""

    engine: Engine
    versions: dict[str, str] = field(default_factory=dict)
    equal: bool | str = "not run"
    tokens: int = 0  # of each row in a timed run
    accepted: list[int] = field(default_factory=list)
    prefill_seconds: list[float] = field(default_factory=list)
    decode_rates: list[float] = field(default_factory=list)
    foreign_cpu: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Measurement plan: ``rounds`` runs of up to ``new_tokens`` a row, about ``seconds`` each."""

    new_tokens: int
    rounds: int
    seconds: float
    batch: int = 1


def compare(
    runners: list[Runner], plan: Plan, check: Callable[[Engine, list[int]], bool | str]
) -> list[Outcome]:
    """Warm up and check every engine, then time those that passed, in turns."""
    outcomes = [Outcome(runner.engine) for runner in runners]
    pairs = list(zip(runners, outcomes, strict=True))
    for runner, outcome in pairs:
        _guarded(outcome, partial(_warm_up, runner, outcome, plan, check))
    for turn in range(plan.rounds):
        for runner, outcome in pairs:
            if outcome.equal is True:
                say(f"round {turn + 1} of {plan.rounds}: {outcome.engine.name}")
                _guarded(outcome, partial(_time, runner, outcome))
    return outcomes


def _guarded(outcome: Outcome, act: Callable[[], None]) -> None:
    try:
        act()
    except EngineFailed as failure:
        outcome.equal = str(failure)
    if outcome.equal is not True:  # discard figures of runs before the failure
        outcome.prefill_seconds, outcome.decode_rates = [], []
        say(f"{outcome.engine.name}: {outcome.equal}")


def _warm_up(
    runner: Runner, outcome: Outcome, plan: Plan, check: Callable[[Engine, list[int]], bool | str]
) -> None:
    """Load; run two warm-ups, the second as long as a timed run; check the tokens.

    Fast engines get more warm-ups: JavaScript engines compile hot code late.
    """
    say(f"loading {runner.engine.name}")
    outcome.versions = runner.load()
    probe = runner.run(min(PROBE, plan.new_tokens))
    affordable = int(plan.seconds * decode_rate(probe) / plan.batch)
    outcome.tokens = min(plan.new_tokens, max(PROBE, affordable))
    marks = runner.run(outcome.tokens)
    if marks[-1][0] < plan.seconds:
        marks = runner.run(outcome.tokens)
    outcome.accepted = tokens_of(marks)[1]
    if len(outcome.accepted) != outcome.tokens * plan.batch:
        expected = outcome.tokens * plan.batch
        raise EngineFailed(f"gave {len(outcome.accepted)} tokens instead of {expected}")
    outcome.equal = check(runner.engine, outcome.accepted)


def _time(runner: Runner, outcome: Outcome) -> None:
    foreign = ForeignCpu()
    marks = runner.run(outcome.tokens)
    outcome.foreign_cpu.append(foreign.cores())
    if tokens_of(marks)[1] != outcome.accepted:
        raise EngineFailed("a timed run gave other tokens than the warm-up")
    outcome.prefill_seconds.append(marks[0][0])
    outcome.decode_rates.append(decode_rate(marks))


def tokens_of(marks: Marks) -> tuple[int, list[int]]:
    """Return the number of tokens in the first mark, and all tokens."""
    return len(marks[0][1]), [token for _, tokens in marks for token in tokens]


def decode_rate(marks: Marks) -> float:
    """Return tokens of all rows per second after the first mark, which ends the prefill."""
    first, everything = tokens_of(marks)
    return (len(everything) - first) / (marks[-1][0] - marks[0][0])


def median(values: list[float]) -> float:
    """Return the median; NaN for no values."""
    return statistics.median(values) if values else float("nan")


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
