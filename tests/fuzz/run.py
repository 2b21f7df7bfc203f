"""The long run: ``make fuzz``, or

    .venv-test/bin/python -m tests.fuzz.run --executions 1000000 --seed 1 [--only header name]

Goes on after a fault, counts each kind once, and stores its input in tests/fuzz/corpus, from where
the tests take it. Ends with status 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.fuzzing import Broken, Fuzzer, kind_of
from tests.fuzz.targets import store, targets

SHARE = 1000  # executions of one target before the next has its turn
LONGEST_SHARE_S = 120


def main(argv: list[str] | None = None) -> int:
    """Fuzzes all targets in turn; returns the exit status."""
    parser = argparse.ArgumentParser(description="Fuzzes every reader of a file or a name.")
    parser.add_argument("--executions", type=int, default=1_000_000, metavar="N", help="(1000000)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets alone")
    parser.add_argument("--keep", action="store_true", help="store an input for each new outcome")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": directory}
        os.chdir(directory)
        chosen = [
            Fuzzer(target, options.seed)
            for target in targets(Path(directory))
            if options.only is None or target.name in options.only
        ]
        status = _fuzz(chosen, options.executions)
        if options.keep:
            for fuzzer in chosen:
                store(fuzzer.target.name, fuzzer.examples())
        return status


def _fuzz(fuzzers: list[Fuzzer], executions: int) -> int:
    faults: dict[str, int] = {}
    begun = time.monotonic()
    for fuzzer in fuzzers:
        _guarded(fuzzer.run_inputs, faults)
    while sum(fuzzer.executions for fuzzer in fuzzers) < executions:
        for fuzzer in fuzzers:
            # A reader that never ends is shown with its stack.
            faulthandler.dump_traceback_later(LONGEST_SHARE_S, exit=True)
            end = fuzzer.executions + SHARE
            while fuzzer.executions < end:
                _guarded(lambda fuzzer=fuzzer, end=end: fuzzer.run(end - fuzzer.executions), faults)
    faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - begun
    for fuzzer in fuzzers:
        accepted = fuzzer.outcomes["value"] / fuzzer.executions
        print(
            f"{fuzzer.target.name}: {fuzzer.executions:,} executions, {accepted:.0%} accepted, "
            f"{len(fuzzer.outcomes)} outcomes"
        )
    total = sum(fuzzer.executions for fuzzer in fuzzers)
    print(f"{total:,} executions in {took:.0f} s, {len(faults)} kinds of faults")
    return 1 if faults else 0


def _guarded(run, faults: dict[str, int]) -> None:
    """Runs until the end or the first fault, which is stored if it is new."""
    try:
        run()
    except Broken as fault:
        kind = kind_of(fault)
        if kind not in faults:
            store(fault.target.name, [fault.data])
            print(fault, flush=True)
        faults[kind] = faults.get(kind, 0) + 1


if __name__ == "__main__":
    sys.exit(main())
