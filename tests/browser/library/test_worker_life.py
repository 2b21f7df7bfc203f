"""Errors that a worker survives, and replacement of a worker that ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host

STRAY = """
import js
from pyodide.ffi import create_once_callable
def stray():
    raise RuntimeError("a stray error")
js.setTimeout(create_once_callable(stray), 50)
"""


@pytest.fixture(scope="module")
def own_tab(browser: Browser, host: Host) -> Iterator[Tab]:
    """A tab whose worker may end; `asked` counts requests to keep its storage."""
    tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    tab.evaluate("""async () => {
          globalThis.asked = 0;
          navigator.storage.persist = async () => ++asked > 0;
          globalThis.lm = await GPT2.load("fairytales");
        }""")
    yield tab
    tab.close()


def test_the_model_is_stored_to_stay(own_tab: Tab) -> None:
    found = own_tab.evaluate("() => ({ stored: lm.info.stored, asked })")
    assert found == {"stored": True, "asked": 1}


def test_a_stray_error_ends_nothing(own_tab: Tab) -> None:
    own_tab.evaluate("(code) => lm.python(code)", STRAY)
    for _ in range(100):
        if own_tab.complaints:
            break
        own_tab.evaluate("() => new Promise((resolve) => setTimeout(resolve, 100))")
    assert "a stray error" in "".join(own_tab.complaints)
    assert own_tab.evaluate("() => lm.python('1 + 1')")["result"] == "2"


def test_dispose_while_python_runs(own_tab: Tab) -> None:
    """The console is stopped, and a signal that comes afterwards finds nothing to stop."""
    found = own_tab.evaluate(
        """async () => {
          const other = await GPT2.load("fairytales");
          const controller = new AbortController();
          const code = "import asyncio\\ntry:\\n  await asyncio.sleep(60)\\nfinally:\\n"
            + "  await asyncio.sleep(0.5)";
          const running = thrown(() => other.python(code, { signal: controller.signal }));
          await new Promise((resolve) => setTimeout(resolve, 200));
          await other.dispose();
          controller.abort();
          const { name } = await running;
          return { name, result: (await lm.python("2 + 2")).result, asked };
        }"""
    )
    assert found == {"name": "DisposedTensorError", "result": "4", "asked": 1}


def test_a_worker_that_ended_is_replaced(own_tab: Tab) -> None:
    found = own_tab.evaluate(
        """async () => {
          const events = [];
          lm.onlost = () => events.push("lost");
          lm.onended = ({ message }) => events.push(message);
          const running = thrown(() => lm.python(
            "import js, pyodide_js; pyodide_js._api.fatal_error(js.Error.new('out of memory'))"));
          const errors = [await running, await thrown(() => lm.generate("The"))];
          await lm.dispose();
          errors.push(await thrown(() => lm.memory()));
          const other = await GPT2.load("fairytales");
          const text = await other.generate("The", { maxTokens: 3, stop: "QX" });
          return { events, errors, text };
        }"""
    )
    (event,) = found["events"]
    assert "the worker ended: out of memory" in event
    assert [error["name"] for error in found["errors"]] == [
        "WorkerError",
        "WorkerError",
        "DisposedTensorError",
    ]
    assert found["text"]


def test_dispose_ends_a_worker_whose_python_never_waits(own_tab: Tab) -> None:
    found = own_tab.evaluate(
        """async () => {
          const events = [];
          const other = await GPT2.load("fairytales");
          other.onended = ({ message }) => events.push(message);
          const running = thrown(() => other.python("while True: pass"));
          await new Promise((resolve) => setTimeout(resolve, 500));
          await other.dispose();
          const { name } = await running;
          const next = await GPT2.load("fairytales");
          return { events, name, text: await next.generate("The", { maxTokens: 3 }) };
        }"""
    )
    (event,) = found["events"]
    assert "Python did not answer within 5 seconds" in event
    assert found["name"] == "WorkerError"
    assert found["text"]


def test_a_script_that_is_not_there(own_tab: Tab) -> None:
    """A worker that never began is dead at once, and says so from then on."""
    found = own_tab.evaluate(
        """async () => {
          const { Caller } = await import("../web/rpc.js");
          const caller = new Caller(new Worker("absent.js", { type: "module" }));
          const call = () => thrown(() => caller.call("check", []));
          return [await call(), await call()];
        }"""
    )
    assert [error["name"] for error in found] == ["WorkerError"] * 2
