"""Quality of the page: accessibility, speed, layout stability, size, types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit, longest_task

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "build" / "screenshots"
Begin = Callable[..., Visit]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}
AUDITED = ("light", "phone-dark")  # each colour scheme and each width once


def audit(me: Visit, node_modules: Path, look: str, state: str) -> None:
    """Takes a picture; fails on any finding of axe-core, and on a page wider than its window."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    me.page.screenshot(path=PICTURES / f"{look}-{state}.png", full_page=True)
    me.evaluate((node_modules / "axe-core" / "axe.min.js").read_text())
    # (Everything but rules that axe itself calls experimental.)
    found = me.evaluate("async () => (await axe.run({ resultTypes: ['violations'] })).violations")
    violations = [(rule["id"], rule["help"], [n["html"] for n in rule["nodes"]]) for rule in found]
    assert violations == [], json.dumps(violations, indent=1)
    assert me.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("look", AUDITED)
def test_every_state_is_accessible(visit: Begin, node_modules: Path, look: str) -> None:
    rows = [{"id": "a/one", "name": "a/one", "bytes": 548_100_000, "complete": True}]
    adapter = {"name": "SwiftShader", "software": True}
    check = {"ok": True, "adapter": adapter, "warnings": []}
    fake = {"step": 100, "pause": 40, "stored": rows, "check": check}
    me = visit(fake, **LOOKS[look])
    expect(me("load")).to_be_enabled()
    audit(me, node_modules, look, "1-first")
    me.page.locator("#others summary").click()
    audit(me, node_modules, look, "2-others")
    me.page.locator("#others summary").click()
    me("load").click()
    expect(me("load")).to_have_text("Cancel")
    audit(me, node_modules, look, "3-loading")
    expect(me("generate")).to_be_enabled(timeout=30_000)
    me("generate").click()
    me.until(lambda: len(me.text) > 100, "some text")
    audit(me, node_modules, look, "4-writing")
    me("story").evaluate("view => view.scrollTo(0, 0)")
    me("console-toggle").click()
    me("examples").get_by_role("button").nth(1).click()
    expect(me("console-log")).to_contain_text("ran")
    audit(me, node_modules, look, "5-console")
    me.page.keyboard.press("Escape")
    me.wait_for_end()
    me("odds").check()
    me("maxTokens").fill("40")
    me.generate()
    me("story").press("ArrowRight")
    audit(me, node_modules, look, "6-odds")
    me("odds-bars").get_by_role("button").last.press("Enter")
    me.wait_for_end()
    me("story").press("ArrowRight")
    audit(me, node_modules, look, "6-branch")
    me("inspect").click()
    me("heads").get_by_role("button", name="Head 1").click()
    me("lens").get_by_role("button").first.click()
    me("measure").click()
    expect(me("time-rows").locator("tr")).to_have_count(3)
    audit(me, node_modules, look, "7-inspector")


@pytest.mark.parametrize("look", AUDITED)
def test_failing_states_are_accessible(visit: Begin, node_modules: Path, look: str) -> None:
    check = {
        "ok": False,
        "reason": "This browser has no WebGPU.",
        "remedy": "Use a current Chrome, Edge, Firefox or Safari.",
        "warnings": [],
    }
    me = visit({"check": check}, **LOOKS[look])
    expect(me("obstacle")).to_be_visible()
    audit(me, node_modules, look, "7-obstacle")
    fail = {"stage": "weights", "name": "WeightsError", "message": "wrong hash: " + "1f" * 32}
    other = visit({"failAt": fail}, **LOOKS[look])
    expect(other("load")).to_be_enabled()
    other("load").click()
    expect(other("model-message")).to_contain_text("Wrong hash")
    audit(other, node_modules, look, "8-failed")
    other.evaluate("() => { fake.failAt = null; fake.running = 1; }")
    other.load()
    other("generate").click()
    expect(other("writing-error")).not_to_be_empty()
    audit(other, node_modules, look, "9-no-text")


@pytest.mark.parametrize("odds", [False, True])
def test_the_page_never_holds_its_thread(visit: Begin, odds: bool) -> None:
    me = visit({"pause": 1})
    me.load()
    me("odds").set_checked(odds)
    me("maxTokens").fill("256")
    assert 0 < longest_task(me.page, lambda: me.generate(60_000)) <= 50


@pytest.mark.parametrize("look", ["light", "phone"])
def test_nothing_moves_by_itself(visit: Begin, look: str) -> None:
    me = visit({"step": 20}, **LOOKS[look])
    me.load()
    me.generate()
    assert me.evaluate("() => seen.shifts") == []


def test_reduced_motion_is_respected(visit: Begin) -> None:
    for wish, name in (("reduce", "none"), ("no-preference", "wait")):
        me = visit({"pause": 40}, reduced_motion=wish)
        me.load()
        me("generate").click()
        expect(me("generate")).to_have_text("Stop")
        animation = "t => getComputedStyle(t, '::after').animationName"
        assert me("text").evaluate(animation) == name
        me.page.keyboard.press("Escape")
        me.wait_for_end()


def test_the_keyboard_reaches_everything_in_order(visit: Begin) -> None:
    me = visit()
    me.load()
    me.page.locator(".skip").focus()
    reached = []
    for _ in range(60):
        me.page.keyboard.press("Tab")
        focused = me.evaluate(
            "() => document.activeElement.id"
            " || document.activeElement.textContent.trim().slice(0, 20)"
        )
        reached.append(focused)
    wanted = [
        "load",
        "prompt",
        "generate",
        "story",
        "copy",
        "share",
        "temperature",
        "console-toggle",
    ]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted
    for name in ("generate", "temperature"):
        me(name).focus()
        me.page.keyboard.press("Shift+Tab")
        me.page.keyboard.press("Tab")
        width = me(name).evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)")
        assert width >= 2


def test_no_code_or_style_stands_in_the_markup() -> None:
    html = (ROOT / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]* src=)", html)
    loaded = re.sub(r"<a\b[^>]*>", "", html)  # links may lead elsewhere
    assert not re.search(r"""(?:src|href)=["'](?:https?:|/)""", loaded)  # any sub-path, one host
    for script in (ROOT / "web" / "page").rglob("*.js"):
        assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|\beval\b", script.read_text())


def test_nothing_outgrows_its_reader() -> None:
    for path in [*(ROOT / "web" / "page").rglob("*.js"), *(ROOT / "web" / "style").glob("*.css")]:
        assert len(path.read_text().splitlines()) <= 300, path.name
