"""Unsupported browsers: the reason and the remedy replace the button."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("This browser has no WebGPU.", "Use a current Chrome, Edge, Firefox or Safari."),
        ("This page was not loaded securely.", "Open it with https, or on localhost."),
    ],
)
def test_an_obstacle_comes_with_its_remedy(visit: Begin, reason: str, remedy: str) -> None:
    me = visit({"check": {"ok": False, "reason": reason, "remedy": remedy, "warnings": []}})
    expect(me("obstacle-reason")).to_have_text(reason)
    expect(me("obstacle-remedy")).to_have_text(remedy)
    expect(me.page.locator("#obstacle[role=alert]")).to_be_visible()
    expect(me("adapter")).to_have_text("No usable GPU")
    expect(me("load")).to_be_hidden()
    expect(me("generate")).to_be_disabled()
    assert me.calls("size") == []  # nothing else is asked for


def test_a_software_adapter_is_told(visit: Begin) -> None:
    adapter = {"name": "SwiftShader", "software": True}
    warnings = ["SwiftShader computes on the CPU.", "No files are kept."]
    me = visit({"check": {"ok": True, "adapter": adapter, "warnings": warnings}})
    expect(me("adapter")).to_have_text("SwiftShader · software")
    expect(me("model-message")).to_have_text(" ".join(warnings))
    me.load()


@pytest.mark.parametrize("width", [360, 1280])
def test_a_long_warning_has_the_width_of_the_panel(visit: Begin, width: int) -> None:
    adapter = {"name": "SwiftShader", "software": True}
    warning = "SwiftShader is a software adapter that computes on the CPU, so text comes slowly."
    check = {"ok": True, "adapter": adapter, "warnings": [warning]}
    me = visit({"check": check}, viewport={"width": width, "height": 900})
    expect(me("model-message")).to_have_text(warning)
    message, chosen = me("model-message").bounding_box(), me("candidate").bounding_box()
    assert message and chosen
    assert message["width"] == chosen["width"]


def test_a_check_that_fails_is_an_obstacle_too(visit: Begin) -> None:
    me = visit({"checkFails": "no luck"})
    expect(me("obstacle-remedy")).to_have_text("no luck")


def test_the_page_stands_before_its_scripts(visit: Begin) -> None:
    me = visit()
    first = me.evaluate("() => performance.getEntriesByName('first-contentful-paint').length")
    assert first == 1
    asked = me.evaluate(
        "() => performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    )
    assert not [path for path in asked if "pyodide" in path or path.endswith(".whl")]
