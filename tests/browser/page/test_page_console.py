"""Python console: keys, history, blocks, output as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


@pytest.fixture
def console(visit: Begin) -> Callable[..., Visit]:
    def begin(answers: dict[str, dict[str, object]] | None = None) -> Visit:
        me = visit({"console": answers or {}})
        me.load()
        me("console-toggle").click()
        expect(me("code")).to_be_focused()
        return me

    return begin


def test_code_runs_and_its_output_is_shown(console: Begin) -> None:
    answers = {"print(1)": {"output": "1\n", "result": None}, "2": {"output": "", "result": "2"}}
    me = console(answers)
    me("code").fill("print(1)")
    me("code").press("Enter")
    expect(me("code")).to_have_value("")
    me("code").fill("2")
    me("run").click()
    expect(me.page.locator("#console-log pre")).to_have_text([">>> print(1)", "1", ">>> 2", "2"])


def test_a_traceback_is_output_like_any_other(console: Begin) -> None:
    traceback = 'Traceback (most recent call last):\n  File "<exec>"\nZeroDivisionError: …'
    me = console({"1/0": {"error": traceback}})
    me("code").fill("1/0")
    me("code").press("Enter")
    expect(me.page.locator("#console-log .error")).to_have_text(traceback)
    expect(me("run")).to_have_text("Run")


def test_a_block_takes_lines_until_an_empty_one(console: Begin) -> None:
    me = console()
    me("code").press_sequentially("with gw.tidy():")
    me("code").press("Enter")
    assert me("code").input_value() == "with gw.tidy():\n    "
    me("code").press_sequentially("x = (1 +")
    me("code").press("Enter")
    me("code").press_sequentially("2)")
    me("code").press("Enter")
    assert me.calls("python") == []
    me("code").press("Enter")
    me.until(lambda: len(me.calls("python")) == 1, "the block runs")
    (call,) = me.calls("python")
    assert call[1] == "with gw.tidy():\n    x = (1 +\n    2)"


def test_shift_enter_is_always_a_new_line(console: Begin) -> None:
    me = console()
    me("code").fill("a = 1")
    me("code").press("Shift+Enter")
    assert me("code").input_value() == "a = 1\n"
    assert me.calls("python") == []


def test_arrows_recall_what_was_typed(console: Begin) -> None:
    me = console()
    for code in ("first", "second"):
        me("code").fill(code)
        me("code").press("Enter")
        expect(me("run")).to_have_text("Run")
    me("code").fill("draft")
    seen = []
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowDown"):
        me("code").press(key)
        seen.append(me("code").input_value())
    assert seen == ["second", "first", "first", "second", "draft", "draft"]


@pytest.mark.parametrize("way", ["button", "escape"])
def test_a_run_is_stopped(console: Begin, way: str) -> None:
    me = console({"await forever": {"wait": 60_000}})
    me("code").fill("await forever")
    me("code").press("Enter")
    expect(me("run")).to_have_text("Stop")
    if way == "button":
        me("run").click()
    else:
        me.page.keyboard.press("Escape")
    expect(me.page.locator("#console-log pre").last).to_have_text("Stopped.")
    expect(me("run")).to_have_text("Run")
    me("code").fill("x")
    me("code").press("Enter")
    expect(me("console-log")).to_contain_text("ran x")


def test_what_never_waits_is_said_to_end_by_unload(console: Begin) -> None:
    me = console({"while True: pass": {"wait": 60_000, "deaf": True}})
    me("code").fill("while True: pass")
    me("code").press("Enter")
    me.page.keyboard.press("Escape")
    expect(me("console-log")).to_contain_text("Only Unload can end it")
    expect(me("run")).to_be_disabled()


def test_tab_leaves_the_prompt(console: Begin) -> None:
    me = console()
    me("code").fill("x")
    me.page.keyboard.press("Tab")
    expect(me("run")).to_be_focused()
    me.page.keyboard.press("Shift+Tab")
    expect(me("code")).to_be_focused()


def test_without_a_model_there_is_nothing_to_run_on(visit: Begin) -> None:
    me = visit()
    me("console-toggle").click()
    expect(me("run")).to_be_disabled()
    assert me("code").get_attribute("placeholder") == "Load a model first"
    me("console-toggle").click()
    expect(me("code")).to_be_hidden()


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("x = 1", False),
        ("print('(')", False),
        ("x = [1,", True),
        ("x = {1: (2)}", False),
        ("if x:", True),
        ("if x:  # why", True),
        ("if x:\n    y", True),
        ("if x:\n    y\n", False),
        ("@gw.tidy", True),
        ("s = '''a", True),
        ("s = '''a\nb'''", False),
        ("x = 1 + \\", True),
        ("# (", False),
        ("d = 'a:'", False),
    ],
)
def test_what_wants_another_line(visit: Begin, code: str, more: bool) -> None:
    me = visit()
    module = "new URL('web/page/open-block.js', document.baseURI).href"
    script = f"async (code) => (await import({module})).wantsMore(code)"
    assert me.page.evaluate(script, code) is more
