"""`configure`: the folder from which the library starts its worker."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.library.browsing import Tab

CONFIGURED = "(baseURL) => thrown(() => configure({ baseURL }))"


def test_configure(open_tab: Callable[[str], Tab]) -> None:
    """It takes effect until a worker has started, and again after that has ended."""
    tab = open_tab("tests/library.html")
    for wrong in (1, None, "http://"):
        fault = tab.evaluate(CONFIGURED, wrong)
        assert fault["name"] == "TypeError" and "baseURL must be the address" in fault["message"]
    assert tab.evaluate(CONFIGURED, "absent?x#y") is None
    fault = tab.evaluate("() => thrown(check)")
    assert fault["name"] == "WorkerError"
    assert "/tests/absent/web/worker.js could not be loaded (configure(" in fault["message"]
    assert tab.evaluate(CONFIGURED, "..") is None
    assert tab.evaluate("async () => (await check()).ok")
    fault = tab.evaluate(CONFIGURED, "absent")
    assert fault["name"] == "InvalidStateError" and "Call configure before" in fault["message"]
    assert tab.evaluate(CONFIGURED, "../") is None
