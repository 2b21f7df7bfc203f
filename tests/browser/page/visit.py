"""A visitor of the page: actions, and checks for errors during all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.chromium import collect_self_tests, restore_self_tests

# Recorded from the first moment on: violations of the policy, and shifts of the layout that no
# input explains. (Tasks longer than 50 ms are measured where they are tested.)
_RECORD = """
globalThis.seen = { violations: [], shifts: [] };
addEventListener("securitypolicyviolation", (event) =>
  seen.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
new PerformanceObserver((list) => {
  for (const { hadRecentInput, value, sources } of list.getEntries()) {
    const moved = sources.map(({ node, previousRect: a, currentRect: b }) =>
      `${node?.id || node?.className || node?.nodeName}: ${a.x},${a.y} to ${b.x},${b.y}`);
    if (!hadRecentInput && value > 0.002) seen.shifts.push([value, ...moved]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""

# The page draws 1, 2, 3, ... as the seeds of its texts: a test sees the same texts in each run.
_SEEDS = """
let seed = 0;
const random = crypto.getRandomValues.bind(crypto);
crypto.getRandomValues = (array) =>
  array instanceof Uint32Array && array.length === 1 ? array.fill(++seed) : random(array);
"""


def longest_task(page: Page, work: Callable[[], object]) -> float:
    """Milliseconds of the page's longest task during `work`, scripts and layout, in CPU time.

    A machine that is busy with something else stretches only the time of the clock.
    """
    browser = page.context.browser
    assert browser is not None
    kinds = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
    browser.start_tracing(page=page, categories=kinds)
    work()
    events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        each["tdur"] / 1000
        for each in events
        if each["name"] == "RunTask" and "tdur" in each and (each["pid"], each["tid"]) in threads
    ]
    return float(max(tasks))


class Visit:
    """One page in a context of its own."""

    def __init__(
        self, context: BrowserContext, url: str, fake: dict[str, Any] | None, script: str = ""
    ) -> None:
        self.context = context
        self.still = True  # False: the test itself makes the layout move
        self.problems: list[str] = []  # errors on the browser's console, uncaught exceptions
        context.add_init_script(_RECORD)
        context.add_init_script(f"{{{_SEEDS}}}")
        context.add_init_script(f"globalThis.fake = {json.dumps(fake or {})}; {script}")
        self.url = url
        self.page = self.open(url)

    def open(self, url: str) -> Page:
        """Goes to `url` in a new tab."""
        page = self.context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        restore_self_tests(page)
        page.goto(url)
        self.page = page
        return page

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def __call__(self, name: str) -> Locator:
        """The element with this id."""
        return self.page.locator(f"#{name}")

    def load(self, timeout: float = 20_000) -> None:
        """Loads the model that is chosen, as a visitor does."""
        expect(self("load")).to_be_enabled(timeout=timeout)
        self("load").click()
        expect(self("generate")).to_be_enabled(timeout=timeout)

    def generate(self, timeout: float = 20_000) -> str:
        """Generates and waits for the end; gives prompt and text."""
        self("generate").click()
        self.wait_for_end(timeout)
        return self.text

    def wait_for_end(self, timeout: float = 20_000) -> None:
        """Until a text has ended and its figures are final."""
        expect(self("generate")).to_have_text("Generate", timeout=timeout)
        expect(self("figure-ended")).not_to_have_text("–")

    @property
    def text(self) -> str:
        return self("text").text_content() or ""

    def evaluate(self, script: str) -> Any:
        """What a function of the page gives."""
        return self.page.evaluate(script)

    def calls(self, kind: str) -> list[Any]:
        """What the page asked the fake library for."""
        found: list[Any] = self.evaluate(f"() => fake.calls.filter(([kind]) => kind === '{kind}')")
        return found

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Waits until `condition` holds, looking every 20 ms."""
        for _ in range(int(seconds * 50)):
            if condition():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"never happened: {what}")

    def drop(self, path: Path) -> None:
        """Drops a file or folder of the disk onto the page."""
        session = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        # The page lays a drop zone under the pointer, which has to be entered in its turn.
        for kind in ("dragEnter", "dragOver", "dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 300, "y": 300, "data": data}
            session.send("Input.dispatchDragEvent", event)
            if kind == "dragOver":
                expect(self("dropzone")).to_be_visible()

    def close(self) -> None:
        collect_self_tests(self.page)
        self.context.close()

    def check(self) -> None:
        """Fails if the browser complained about anything, or the layout moved by itself."""
        if self.page.is_closed():
            return
        seen = self.evaluate("() => globalThis.seen")
        assert self.problems == [], self.problems
        assert seen["violations"] == []
        moved = sum(shift[0] for shift in seen["shifts"])
        assert moved < 0.1 or not self.still, seen["shifts"]  # "good" in the Web Vitals


def written(
    visit: Callable[..., Visit], fake: dict[str, object] | None = None, **options: object
) -> Visit:
    """The page with a text of six tokens and their odds."""
    me = visit(fake, **options)
    me.load()
    me("maxTokens").fill("6")
    me("odds").check()
    me.generate()
    return me
