"""What empty submits are worth where finished GPU work is seen every 100 ms, as in Firefox.

    python benchmarks/firefox_ticks.py [-n 128] [-r 5]

Loads the embedded model in headless Chromium and generates a greedy text: as it is, and with a
`mapAsync` and an `onSubmittedWorkDone` that settle only with the next submit or every 100 ms
(Bugzilla 1870699), with and without the library's empty submits. All three texts must be equal.
Prints seconds of loading and tokens per second, medians of ``-r`` rounds that take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import build_site  # noqa: E402
from playwright.sync_api import Browser, Route, sync_playwright  # noqa: E402

from tests.browser.chromium import FLAGS, required_chromium  # noqa: E402
from tests.browser.serving import serving  # noqa: E402

# The library makes empty submits where the user agent says Firefox.
AGENTS = {
    "as it is": None,
    "ticks, empty submits": "Mozilla/5.0 Gecko/20100101 Firefox/153.0",
    "ticks, no empty submits": "Mozilla/5.0 Gecko/20100101",
}
TICKS = """
Object.defineProperty(navigator, "userAgent", { value: AGENT });
const finished = [];
const settle = () => { for (const resolve of finished.splice(0)) resolve(); };
const seen = () => new Promise((resolve) => finished.push(resolve));
setInterval(settle, 100);
const { mapAsync } = GPUBuffer.prototype;
GPUBuffer.prototype.mapAsync = async function (...range) {
  await mapAsync.apply(this, range);
  await seen();
};
const { onSubmittedWorkDone, submit } = GPUQueue.prototype;
GPUQueue.prototype.onSubmittedWorkDone = async function () {
  await onSubmittedWorkDone.call(this);
  await seen();
};
GPUQueue.prototype.submit = function (buffers) {
  submit.call(this, buffers);
  settle();
};
"""
MEASURE = """async (maxTokens) => {
  const { GPT2 } = await import(new URL("web/gpt2.js", location.href).href);
  const warm = await GPT2.load("fairytales"); // Python's start, the self-test, the kernels
  await warm.generate("Once upon a time", { maxTokens: 16, temperature: 0 });
  await warm.dispose();
  const begun = performance.now();
  const lm = await GPT2.load("fairytales");
  const loading = (performance.now() - begun) / 1000;
  const options = { maxTokens, temperature: 0, stop: [] };
  await lm.generate("Once upon a time", options);
  const started = performance.now();
  const text = await lm.generate("Once upon a time", options);
  const rate = (1000 * maxTokens) / (performance.now() - started);
  return { loading, rate, text };
}"""


def visit(browser: Browser, address: str, agent: str | None, count: int) -> dict[str, Any]:
    """Load the model and generate ``count`` tokens, in a new profile."""
    context = browser.new_context()

    def begin_with_ticks(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body='import "./ticks.js";\n' + response.text())

    if agent is not None:
        script = TICKS.replace("AGENT", repr(agent))
        context.route("**/web/worker.js", begin_with_ticks)
        context.route(
            "**/web/ticks.js",
            lambda route: route.fulfill(content_type="text/javascript", body=script),
        )
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(address)
    figures: dict[str, Any] = page.evaluate(MEASURE, count)
    context.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--new-tokens", type=int, default=128)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in AGENTS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        build_site.write(Path(folder), build_site.contents())
        browser = playwright.chromium.launch(executable_path=required_chromium(), args=FLAGS)
        with serving(Path(folder)) as address:
            for _ in range(args.rounds):
                for name, agent in AGENTS.items():
                    runs[name].append(visit(browser, address, agent, args.new_tokens))
        browser.close()
    if len({run["text"] for found in runs.values() for run in found}) > 1:
        raise SystemExit("texts differ")
    for name, found in runs.items():
        loading = statistics.median(run["loading"] for run in found)
        rate = statistics.median(run["rate"] for run in found)
        print(f"{name}: loading {loading:.2f} s, {rate:.1f} tokens/s")


if __name__ == "__main__":
    main()
