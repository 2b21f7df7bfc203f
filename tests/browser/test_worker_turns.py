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
const late = async () => order.push("time limit");
const until = Infinity;
const calls = [
  running.then(() => order.push("running")),
  alone(id, "generating", async () => 1, { signal: stopped.signal, until, late })
    .catch(({ name }) => order.push(name)),
  ...[1e-3, 60, "60", undefined].map((timeLimit) => {
    const { until, left } = timed({ timeLimit });
    const work = async () => order.push(left().timeLimit);
    return alone(id, "generating", work, { signal, until, late });
  }),
];
stopped.abort();
await new Promise((resolve) => setTimeout(resolve, 50));
end();
await Promise.all(calls);
console.log(JSON.stringify(order));
"""


def test_an_abort_or_a_time_limit_ends_the_wait_and_the_limit_counts_it() -> None:
    modules = [(ROOT / "web" / f"worker-{name}.js").as_uri() for name in ("models", "texts")]
    run = subprocess.run(
        ["node", "--input-type=module", "-e", PROGRAM, *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    aborted, late, running, left, *others = json.loads(run.stdout)
    assert (aborted, late, running) == ("AbortError", "time limit", "running")
    assert 59 < left < 60
    assert others == ["60", None]
