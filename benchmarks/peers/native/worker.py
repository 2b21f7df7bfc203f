"""Worker process of one engine, controlled by JSON lines.

Each engine has its own process, which isolates spinning thread pools, global state and crashes, and
allows measuring the CPU time of others.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

Emit = Callable[[Sequence[int]], None]


class Adapter(Protocol):
    """Protocol of an engine.

    One call for prefill and decoding, as half of the engines have no separate ones. The first
    ``emit`` ends the prefill, the last one the run; tokens of one emit arrive together: a token of
    each row, or several times that.
    """

    def load(self, model: Path, threads: int) -> dict[str, str]:
        """Load the model; return versions by name, and the GPU's name under ``adapter``."""

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        """Generate ``count`` greedy tokens after each of ``work``'s ids or prompts.

        No token stops it.
        """


def timed(engine: Adapter, work: dict[str, Any], count: int) -> list[tuple[float, list[int]]]:
    """Run once; return (seconds since the call, tokens) of each emit."""
    marks: list[tuple[float, list[int]]] = []
    begun = time.perf_counter()
    engine.generate(work, count, lambda ids: marks.append((time.perf_counter() - begun, list(ids))))
    return marks


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirect the output of libraries to stderr
    module, options, model, threads = json.loads(sys.argv[1])
    engine: Adapter | None = None
    for line in sys.stdin:
        try:
            if engine is None:
                found = importlib.import_module(f"benchmarks.peers.native.{module}")
                engine = found.Engine(**options)
                answer: dict[str, Any] = {"ok": engine.load(Path(model), threads)}
            else:
                answer = {"ok": timed(engine, *json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
