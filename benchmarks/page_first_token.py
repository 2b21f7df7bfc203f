"""Time until the first token on the page, over a slow network: the embedded model, first visit.

    python benchmarks/page_first_token.py [--mbit 20] [-r 2]

Serves the built site at a limited rate, which all connections share, and loads the model in a new
profile of headless Chromium, then once more in the same profile with everything stored. Seconds are
since the navigation; ``over`` is the time of the first token beyond the later of the end of the
download and of Python's start.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import build_site  # noqa: E402
from playwright.sync_api import BrowserContext, sync_playwright  # noqa: E402

from tests.browser.chromium import FLAGS, required_chromium  # noqa: E402
from tests.browser.serving import Handler, serving  # noqa: E402

PIECE = 16 << 10
MEASURE = """async () => {
  const { GPT2 } = await import(new URL("web/gpt2.js", location.href).href);
  const seconds = () => performance.now() / 1000;
  const times = {};
  const lm = await GPT2.load("fairytales", {
    onProgress: ({ stage, state, phase }) => {
      times[`${stage} ${phase ?? state}`] ??= seconds();  // the first report of each
      if (phase === "download") times["last download"] = seconds();
    },
  });
  times.loaded = seconds();
  for await (const _ of lm.stream("Once upon a time", { maxTokens: 1 })) break;
  times["first token"] = seconds();
  return times;
}"""


class Throttled(Handler):
    """Sends all answers together at ``rate`` bytes per second."""

    rate = 0.0
    _lock = threading.Lock()
    _free = 0.0  # when the line is free again

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while data := source.read(PIECE):
            with Throttled._lock:
                start = max(Throttled._free, time.monotonic())
                Throttled._free = start + len(data) / self.rate
            time.sleep(max(0.0, start - time.monotonic()))
            outputfile.write(data)


def visit(context: BrowserContext, address: str) -> dict[str, float]:
    """Load the model and begin a text, in a new tab."""
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(address, wait_until="commit")
    times: dict[str, float] = page.evaluate(MEASURE)
    page.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=20, help="rate of the network")
    parser.add_argument("-r", "--repeats", type=int, default=2)
    args = parser.parse_args()
    Throttled.rate = args.mbit * 1e6 / 8
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        build_site.write(Path(folder), build_site.contents())
        browser = playwright.chromium.launch(executable_path=required_chromium(), args=FLAGS)
        with serving(Path(folder), Throttled) as address:
            for run in range(args.repeats):
                context = browser.new_context()
                for name in ("first visit", "second visit"):
                    times = visit(context, address)
                    ready = max(times.get("last download", 0.0), times["package done"])
                    over = times["first token"] - ready
                    listed = ", ".join(f"{key} {value:.2f}" for key, value in times.items())
                    print(f"{name} {run + 1}: over {over:.2f} s ({listed})", flush=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
