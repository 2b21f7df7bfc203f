"""Fuzzing: the property of every reader, and the search for inputs that violate it.

A reader gives a value or raises an error of ``gpt2_wgpu.errors`` with a message of one line and at
most 1,000 characters, in time and memory that grow with the input only.
"""

from __future__ import annotations

import re
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from gpt2_wgpu.errors import GPT2WGPUError
from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import Target

LONGEST_MESSAGE = 1000
MAX_STORED = 400  # bytes of an input that is stored
MAX_SECONDS = 0.5  # of this thread's CPU, for inputs of up to 64 KiB
MAX_BYTES = 4 << 20  # of Python's memory, beside 200 bytes for each byte of the input
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+|\[.*\]|\{.*\}")


class Broken(AssertionError):
    """An input broke the property; ``data`` is that input."""

    def __init__(self, target: Target, data: bytes, reason: str) -> None:
        super().__init__(f"{target.name}: {reason}; input {data[:200]!r} ({len(data)} bytes)")
        self.target, self.data, self.reason = target, data, reason


def kind_of(fault: Broken) -> str:
    """Equal for faults that are likely the same: the target, what happened, and where."""
    trace, place = getattr(fault.__cause__, "__traceback__", None), ""
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return (
        f"{fault.target.name}: {re.sub('[0-9,.]+', '_', fault.reason).partition(': ')[0]} {place}"
    )


def check(target: Target, data: bytes, *, measure_memory: bool = False) -> str:
    """Runs one input; returns its outcome ("value", or the error without its variable parts).

    Raises:
        Broken: the property does not hold.
    """
    if measure_memory:
        tracemalloc.start()
    begun = time.thread_time()
    try:
        target.run(data)
        outcome = "value"
    except GPT2WGPUError as error:
        outcome = _checked_message(target, data, error)
    except (Exception, RecursionError) as error:
        raise Broken(target, data, f"{type(error).__name__}: {error!s:.300}") from error
    finally:
        took = time.thread_time() - begun
        peak = tracemalloc.get_traced_memory()[1] if measure_memory else 0
        tracemalloc.stop()
    if took > MAX_SECONDS * (10 if measure_memory else 1):
        raise Broken(target, data, f"took {took:.2f} s")
    if peak > MAX_BYTES + 200 * len(data):
        raise Broken(target, data, f"took {peak:,} bytes of memory")
    return outcome


def _checked_message(target: Target, data: bytes, error: GPT2WGPUError) -> str:
    message = str(error)
    if len(message) > LONGEST_MESSAGE:
        raise Broken(
            target, data, f"a message of {len(message):,} characters: {message[:200]}"
        ) from error
    if not message or "\n" in message or "\0" in message:
        raise Broken(target, data, f"a message that is not one line: {message[:200]!r}") from error
    try:
        message.encode()
    except UnicodeEncodeError:
        raise Broken(
            target, data, f"a message that cannot be printed: {message[:200]!r}"
        ) from error
    return f"{type(error).__name__}: {_VARIABLE.sub('_', message)[:120]}"


class Fuzzer:
    """Mutates the inputs of a target; those with a new outcome become inputs, too."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.inputs = target.inputs()
        self.accepted = target.seeds[:1]  # of them those that are valid: half of what is mutated
        self.outcomes: Counter[str] = Counter()
        self.executions = 0
        self._smallest: dict[str, bytes] = {}  # outcome → its smallest input
        self._mutator = Mutator(seed)

    def run_inputs(self) -> None:
        """Checks the seeds and the stored inputs as they are, their memory too."""
        for measure_memory in (False, True):  # the first time modules are imported, caches filled
            for data in self.inputs.copy():
                self._run(data, measure_memory=measure_memory)

    def run(self, executions: int) -> None:
        """Checks so many mutations."""
        for _ in range(executions):
            pool = self._mutator.random.choice([self.inputs, self.accepted])
            base = self._mutator.random.choice(pool)
            data = self._mutator.changed(base, self.inputs, self.target.start)
            self._run(data, measure_memory=self.executions % 500 == 0)

    def _run(self, data: bytes, *, measure_memory: bool) -> None:
        self.executions += 1
        outcome = check(self.target, data, measure_memory=measure_memory)
        if outcome not in self.outcomes and len(data) < 10_000:
            self.inputs.append(data)
        if outcome == "value" and len(self.accepted) < 100:
            self.accepted.append(data)
        self.outcomes[outcome] += 1
        if len(data) < len(self._smallest.get(outcome, bytes(MAX_STORED + 1))):
            self._smallest[outcome] = data

    def examples(self) -> list[bytes]:
        """A small input for each of the outcomes that came most often."""
        common = [outcome for outcome, _ in self.outcomes.most_common(60)]
        return [self._smallest[outcome] for outcome in common if outcome in self._smallest]
