"""The first visit: before a model is loaded, the page shows a recorded run with all its views."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit, longest_task

Begin = Callable[..., Visit]
RUN = Path(__file__).parents[3] / "web" / "page" / "recorded-run.json"
NO_GPU = {"ok": False, "reason": "This browser has no WebGPU.", "remedy": "…", "warnings": []}


@pytest.fixture
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RUN.read_text("utf-8"))
    return found


@pytest.mark.parametrize("check", [None, NO_GPU], ids=["gpu", "no gpu"])
def test_every_view_is_filled(visit: Begin, run: dict[str, Any], check: Any) -> None:
    me = visit({"check": check} if check else None)
    expect(me("story-label")).to_have_text("Recorded example: fairytales, float32, seed 7")
    expect(me("inspector-recorded")).to_contain_text("Recorded: fairytales, float32, seed 7, on ")
    assert me.text == run["prompt"] + run["text"]
    tokens = me("text").locator("[class^=tint-]")
    expect(tokens).to_have_count(len(run["odds"]["ids"]))
    me("story").press("ArrowRight")
    expect(me("odds-line")).to_contain_text(f"“{run['odds']['pieces'][0]}”")
    expect(me("odds-bars").locator("tr")).to_have_count(10)
    expect(me("heads").locator("button")).to_have_count(run["attention"]["heads"])
    expect(me("lens").locator("tr")).to_have_count(1 + len(run["lens"]["layers"]))
    me("lens").get_by_role("button").last.click()
    expect(me("lens-line")).to_contain_text("At the end, after “ and”: ")
    expect(me("time-rows").locator("tr")).to_have_count(len(run["time"]["kernels"]))
    expect(me("time-line")).to_contain_text("Means of 32 steps from position ")
    assert me.calls("inspect") == []


def test_it_never_holds_the_thread(visit: Begin) -> None:
    me = visit()

    def shown_again() -> None:
        me.page.reload()
        expect(me("time-line")).to_contain_text("Means of 32 steps")

    assert 0 < longest_task(me.page, shown_again) <= 50


def test_the_attention_is_that_of_the_chosen_layer(visit: Begin, run: dict[str, Any]) -> None:
    """The words below the matrix name the recorded weights of the last token."""
    me = visit()
    seen = set()
    for layer in range(len(run["attention"]["patterns"])):
        me("inspected-layer").select_option(str(layer))
        expect(me("inspected-layer")).to_have_value(str(layer))
        seen.add(me("attention-line").text_content())
    assert len(seen) == len(run["attention"]["patterns"])
    shares = [
        float(each.evaluate("b => b.style.getPropertyValue('--share')"))
        for each in me("attention-tokens").locator("button").all()
    ]
    assert len(shares) == run["attention"]["length"]
    assert sum(shares) == pytest.approx(1, abs=0.05)  # weights of one row, stored in a byte each


def test_the_first_text_replaces_it(visit: Begin) -> None:
    me = visit()
    expect(me("inspector-recorded")).to_contain_text("Recorded")
    me.load()
    expect(me("inspector-recorded")).to_contain_text("Recorded")
    me("maxTokens").fill("3")
    text = me.generate()
    expect(me("inspector-recorded")).to_have_text("")
    assert [call[1] for call in me.calls("inspect")] == [text]
    expect(me("attention-tokens").locator("button")).to_have_count(len(text.split()) + 1)
    assert "Recorded" not in (me("writing").text_content() or "")
    me.generate()
    assert len(me.calls("inspect")) == 1  # from now on when Compute is pressed


def test_a_text_does_not_wait_for_the_views(visit: Begin) -> None:
    """The next text stops what is computed for the views, and they are of that text."""
    me = visit()
    me.load()
    me("maxTokens").fill("3")
    me.evaluate("() => { fake.slowInside = 10_000; }")
    me.generate()
    expect(me("inspect")).to_have_text("Stop")
    me.evaluate("() => { fake.slowInside = 0; }")
    me("continue").click()
    me.wait_for_end()
    expect(me("inspector-recorded")).to_have_text("")
    assert [call[1] for call in me.calls("inspect")][1:] == [me.text]
    assert me.calls("stream")[-1][2]["wait"] is True


def test_closed_views_stay_recorded_and_cost_nothing(visit: Begin) -> None:
    me = visit()
    expect(me("inspector-recorded")).to_contain_text("Recorded")
    me("inspector-toggle").click()
    me.load()
    me("maxTokens").fill("3")
    me.generate()
    assert me.calls("inspect") == []
    me("inspector-toggle").click()
    me("inspect").click()
    expect(me("inspector-recorded")).to_have_text("")


def test_without_the_record_the_page_works(visit: Begin) -> None:
    """A copy of the site that lacks the file."""
    gone = """
      const real = fetch;
      const no = async () => Promise.reject(new TypeError("gone"));
      fetch = (url, ...rest) => (String(url).endsWith("run.json") ? no() : real(url, ...rest));
    """
    me = visit(script=gone)
    expect(me("odds-panel")).to_be_hidden()
    expect(me("inspected")).to_be_hidden()
    me.load()
    me("maxTokens").fill("3")
    me.generate()
    me("inspect").click()
    expect(me("inspected")).to_be_visible()
