"""`compare.Runner` of an engine in its own process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import EngineFailed, Marks, say
from benchmarks.peers.engines import Engine
from benchmarks.peers.install import python_of
from benchmarks.peers.models import Work

_ROOT = Path(__file__).parents[3]


class NativeRunner:
    """Runs ``worker.py`` in the engine's environment; `close` ends the process."""

    def __init__(self, engine: Engine, work: Work, cache: Path, threads: int) -> None:
        self.engine = engine
        self._work = {"ids": work.ids, "prompts": work.prompts, "words": work.words()}
        arguments = json.dumps([engine.file, engine.options, str(work.directory), threads])
        self._log = (cache / f"{engine.name}.log").open("w")
        self._process = subprocess.Popen(
            [
                str(python_of(cache, engine.environment)),
                "-m",
                "benchmarks.peers.native.worker",
                arguments,
            ],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def load(self) -> dict[str, str]:
        return dict(self._ask(None))

    def run(self, count: int) -> Marks:
        return [(seconds, tokens) for seconds, tokens in self._ask([self._work, count])]

    def close(self) -> None:
        """End the process; its output stays in the cache as ``<engine>.log``."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ask(self, request: object) -> Any:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process ended: see the empty answer below
        line = self._process.stdout.readline()
        answer = json.loads(line or '{"error": "the process ended"}')
        if "error" in answer:
            say(f"output of {self.engine.name}: {self._log.name}")
            raise EngineFailed(answer["error"].strip().splitlines()[0])
        return answer["ok"]
