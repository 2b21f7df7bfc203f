"""Calls of the worker that wait for a model's turn, in Node with a model of JavaScript."""

from __future__ import annotations

import json
import subprocess

from tests.browser.serving import ROOT

PROGRAM = """
globalThis.self = { postMessage() {}, addEventListener() {} };
const [models, texts] = process.argv.slice(1);
const { addModel, alone } = await import(models);
const { timed } = await import(texts);
const id = addModel({ memory: () => ({}), stop() {} }), order = [];
let end;
const running = alone(id, "generating", () => new Promise((resolve) => (end = resolve)));
const stopped = new AbortController(), { signal } = new AbortController();
const left = [1e-3, 60, "60", undefined].map((timeLimit) => timed({ timeLimit }));
const limits = [];
const calls = [
  running.then(() => order.push("running")),
  alone(id, "generating", async () => 1, stopped.signal).catch(({ name }) => order.push(name)),
  ...left.map((now) => alone(id, "generating", async () => limits.push(now().timeLimit), signal)),
];
stopped.abort();
await new Promise((resolve) => setTimeout(resolve, 50));
end();
await Promise.all(calls);
console.log(JSON.stringify({ order, limits }));
"""


def test_an_abort_ends_the_wait_and_a_time_limit_counts_it() -> None:
    modules = [(ROOT / "web" / f"worker-{name}.js").as_uri() for name in ("models", "texts")]
    run = subprocess.run(
        ["node", "--input-type=module", "-e", PROGRAM, *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["order"] == ["AbortError", "running"]
    short, long, *others = found["limits"]
    assert 0 < short < 1e-3
    assert 59 < long < 60
    assert others == ["60", None]
