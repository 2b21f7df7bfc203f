"""Generation on the page: start, stop, repeat, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


def test_text_streams_after_the_prompt_with_its_figures(visit: Begin) -> None:
    me = visit()
    me.load()
    me("prompt").fill("Long ago")
    text = me.generate()
    assert text.startswith("Long ago ")
    assert len(text.split()) == 2 + 128
    expect(me("figure-tokens")).to_have_text("4 prompt + 128 generated")
    expect(me("figure-speed")).to_have_text("500.0 tokens/s")
    expect(me("figure-first")).to_have_text("0.05 s")
    expect(me("figure-ended")).to_have_text("max tokens")


def test_a_text_that_fills_the_context_has_its_own_stop_reason(visit: Begin) -> None:
    me = visit({"context": 20})
    me.load()
    me.generate()
    expect(me("figure-tokens")).to_have_text("4 prompt + 20 generated")
    expect(me("figure-ended")).to_have_text("context full")


def test_enter_generates_and_shift_enter_is_a_new_line(visit: Begin) -> None:
    me = visit()
    me.load()
    me("prompt").fill("One")
    me("prompt").press("Shift+Enter")
    me("prompt").press_sequentially("Two")
    me("prompt").press("Enter")
    me.wait_for_end()
    assert me.text.startswith("One\nTwo ")
    assert me("prompt").input_value() == "One\nTwo"


def test_stop_stands_where_generate_stood(visit: Begin) -> None:
    me = visit({"pause": 20})
    me.load()
    before = me("generate").bounding_box()
    me("generate").click()
    expect(me("generate")).to_have_text("Stop")
    assert me("generate").bounding_box() == before
    me.until(lambda: len(me.text) > 60, "some text")
    me("generate").click()
    me.wait_for_end()
    expect(me("figure-ended")).to_have_text("stopped")
    kept = me.text
    me.page.wait_for_timeout(200)
    assert me.text == kept  # what was written stays, and nothing follows


def test_a_stop_within_the_time_of_a_double_click_stops(visit: Begin) -> None:
    me = visit({"pause": 20})
    me.load()
    me("generate").click(click_count=1)
    me.page.wait_for_timeout(300)
    me("generate").evaluate(_SECOND_CLICK)
    me.wait_for_end()
    expect(me("figure-ended")).to_have_text("stopped")


_SECOND_CLICK = """button => button.dispatchEvent(new MouseEvent("click", { detail: 2 }))"""


def test_escape_stops_wherever_the_focus_is(visit: Begin) -> None:
    me = visit({"pause": 20})
    me.load()
    me("generate").click()
    me.until(lambda: len(me.text) > 40, "some text")
    me("temperature").focus()
    me.page.keyboard.press("Escape")
    me.wait_for_end()
    expect(me("figure-ended")).to_have_text("stopped")


def test_clicks_never_interleave(visit: Begin) -> None:
    me = visit({"pause": 5})
    me.load()
    me("generate").dblclick()
    me("prompt").press("Enter")
    me("prompt").press("Enter")
    me.wait_for_end()
    expect(me("figure-tokens")).to_have_text("4 prompt + 128 generated")
    assert len(me.calls("stream")) == 1
    assert me.evaluate("() => fake.most") == 1


def test_the_same_seed_gives_the_same_text(visit: Begin) -> None:
    me = visit()
    me.load()
    first = me.generate()
    seed = me("seed").input_value()
    me("newSeed").uncheck()
    assert me.generate() == first
    assert me("seed").input_value() == seed
    me("seed").fill("12345")
    expect(me("newSeed")).not_to_be_checked()
    me.generate()
    assert [call[2]["seed"] for call in me.calls("stream")] == [int(seed), int(seed), 12345]
    me("newSeed").check()
    me.generate()
    assert me("seed").input_value() != "12345"


def test_settings_reach_the_model_and_can_be_reset(visit: Begin) -> None:
    me = visit()
    me.load()
    me("temperature").fill("1.25")
    me("topK").fill("0")
    me("topP").fill("0.5")
    me("minP").fill("0.05")
    me("typicalP").fill("0.9")
    me("repetitionPenalty").fill("1.3")
    me("maxTokens").fill("7")
    me("timeLimit").fill("2.5")
    me("seed").fill("42")
    me.generate()
    given: dict[str, Any] = {"temperature": 1.25, "topK": 0, "topP": 0.5, "repetitionPenalty": 1.3}
    given |= {"minP": 0.05, "typicalP": 0.9, "maxTokens": 7, "seed": 42, "wait": True}
    given |= {"stop": [], "timeLimit": 2.5}
    assert me.calls("stream")[-1][2] == given
    assert me.page.locator('[data-for="temperature"]').input_value() == "1.25"
    me.page.get_by_role("button", name="Reset to defaults").click()
    for name, default in {
        "temperature": "0.8",
        "topK": "40",
        "topP": "0.95",
        "minP": "0",
        "typicalP": "1",
        "repetitionPenalty": "1.1",
        "maxTokens": "128",
        "timeLimit": "0",
    }.items():
        assert me(name).input_value() == default
        expect(me.page.locator(f".setting:has(#{name}) small")).to_contain_text(
            f"default {default}"
        )
    expect(me("newSeed")).to_be_checked()
    expect(me.page.locator('[data-for="maxTokens"]')).to_have_value("128")


def test_special_tokens_of_a_prompt_are_text_unless_chosen(visit: Begin) -> None:
    me = visit()
    me.load()
    me.generate()
    me("specialTokens").check()
    me.generate()
    me.page.get_by_role("button", name="Reset to defaults").click()
    me.generate()
    given = [call[2].get("allowedSpecial") for call in me.calls("stream")]
    assert given == [None, "all", None]


def test_stop_texts_are_lines(visit: Begin) -> None:
    me = visit(permissions=["clipboard-read", "clipboard-write"])
    me.load()
    me("stop").fill("The End\n\n king")
    me.generate()
    me("share").click()
    expect(me("writing-message")).to_have_text("Link copied.")
    link = me.evaluate("() => navigator.clipboard.readText()")
    me.page.get_by_role("button", name="Reset to defaults").click()
    expect(me("stop")).to_have_value("")
    me.generate()
    given = [call[2].get("stop") for call in me.calls("stream")]
    assert given == [["The End", " king"], []]
    me.page.goto("about:blank")
    me.page.goto(link)
    expect(me("stop")).to_have_value("The End\n king")


def test_the_field_of_stop_texts_has_those_of_the_model(visit: Begin) -> None:
    """Emptied, none apply; a link keeps that. A line break within a text is written as \\n."""
    me = visit({"stop": ["\n\n", "a\\n"]}, permissions=["clipboard-read", "clipboard-write"])
    me.load()
    expect(me("stop")).to_have_value("\\n\\n\na\\\\n")
    me.generate()
    me("stop").fill("")
    me.generate()
    given = [call[2].get("stop") for call in me.calls("stream")]
    assert given == [["\n\n", "a\\n"], []]
    me("share").click()
    expect(me("writing-message")).to_have_text("Link copied.")
    link = me.evaluate("() => navigator.clipboard.readText()")
    me.page.goto("about:blank")
    me.page.goto(link)
    me.load()
    expect(me("stop")).to_have_value("")


def test_the_time_limit_of_the_model_can_be_switched_off(visit: Begin) -> None:
    """A link keeps that, too."""
    me = visit({"timeLimit": 30, "reason": "time_limit"})
    expect(me("timeLimit")).to_have_value("0")
    me.load()
    expect(me("timeLimit")).to_have_value("30")
    expect(me.page.locator(".setting:has(#timeLimit) small")).to_contain_text("default 30;")
    me.generate()
    expect(me("figure-ended")).to_have_text("time limit")
    me("timeLimit").fill("0")
    me.generate()
    me("numReturnSequences").fill("2")
    me.generate()
    given = [call[2]["timeLimit"] for call in me.calls("stream")]
    assert given == [30, math.inf, math.inf]
    me("share").click()
    expect(me("writing-message")).to_contain_text("ink")
    link = me.page.url
    me.page.goto("about:blank")
    me.page.goto(link)
    me.load()
    expect(me("timeLimit")).to_have_value("0")


def test_a_slider_moves_its_number(visit: Begin) -> None:
    me = visit()
    me.page.locator('[data-for="topK"]').fill("77")
    assert me("topK").input_value() == "77"


def test_a_setting_out_of_range_runs_nothing(visit: Begin) -> None:
    me = visit()
    me.load()
    me("topP").fill("2")
    me("generate").click()
    assert me.calls("stream") == []
    assert me("topP").evaluate("field => field.validationMessage") != ""


def test_bounds_are_the_models(visit: Begin) -> None:
    me = visit()
    me("maxTokens").fill("900")
    me.load()
    assert me("maxTokens").input_value() == "512"  # its context
    assert me("topK").get_attribute("max") == "4096"  # its vocabulary


def test_the_scroll_follows_until_the_reader_scrolls(visit: Begin) -> None:
    me = visit({"pause": 15}, viewport={"width": 800, "height": 700})
    me.load()
    me("maxTokens").fill("512")
    me("generate").click()
    at_end = "v => v.scrollHeight - v.scrollTop - v.clientHeight < 40 && v.scrollTop > 0"
    far = "view => view.scrollTop > 150"
    me.until(lambda: me("story").evaluate(far), "much text")
    assert me("story").evaluate(at_end)
    me("story").evaluate("view => view.scrollTo(0, 0)")
    expect(me("follow")).to_be_visible()
    longer = len(me.text) + 60
    me.until(lambda: len(me.text) > longer, "more text")
    assert me("story").evaluate("view => view.scrollTop") == 0
    me("follow").click()
    expect(me("follow")).to_be_hidden()
    me.until(lambda: me("story").evaluate(at_end), "the view follows again")
    me.page.keyboard.press("Escape")
    me.wait_for_end()


def test_an_error_is_told_and_the_next_text_works(visit: Begin) -> None:
    me = visit({"pause": 5})
    me.load()
    me.evaluate("() => { fake.running = 1; }")  # as if another page wrote with this model
    me("generate").click()
    expect(me("writing-error")).to_have_text("This model is writing already.")
    expect(me.page.get_by_role("alert")).to_have_text("This model is writing already.")
    color = "e => getComputedStyle(e).color"
    assert me("writing-error").evaluate(color) != me("writing-message").evaluate(color)
    expect(me("figure-ended")).to_have_text("error")
    me.evaluate("() => { fake.running = 0; }")
    me.generate()
    expect(me("writing-error")).to_have_text("")


def test_an_error_stands_where_a_visitor_with_a_phone_looks(visit: Begin) -> None:
    me = visit({"pause": 5}, viewport={"width": 360, "height": 640})
    me.load()
    me.evaluate("() => { fake.running = 1; }")
    me("prompt").press("Enter")
    expect(me("writing-error")).not_to_be_empty()
    expect(me("writing-error")).to_be_in_viewport(ratio=1)
    error, button = me("writing-error").bounding_box(), me("generate").bounding_box()
    assert error and button and error["y"] > button["y"]


def test_a_breakdown_comes_into_view(visit: Begin) -> None:
    me = visit({"pause": 20, "end": 30}, viewport={"width": 360, "height": 640})
    me.still = False  # the page scrolls
    me.load()
    me("generate").click()
    me("memory").scroll_into_view_if_needed()
    expect(me("model-message")).to_contain_text("Load the model again.")
    expect(me("model-message")).to_be_in_viewport(ratio=1)


def test_a_lost_device_is_told_and_the_text_goes_on(visit: Begin) -> None:
    me = visit({"pause": 15, "lose": 20})
    me.load()
    me("generate").click()
    expect(me("writing-message")).to_have_text(
        "The GPU was lost (driver reset). The model is reloaded with the next text."
    )
    expect(me("writing-message")).to_contain_text("The model was reloaded")
    me.wait_for_end()
    expect(me("figure-tokens")).to_have_text("4 prompt + 128 generated")


def test_a_worker_that_breaks_down_is_told_and_the_model_can_be_loaded_again(visit: Begin) -> None:
    me = visit({"pause": 5, "end": 10})
    me.load()
    me("generate").click()
    expect(me("model-message")).to_contain_text("Load the model again.")
    expect(me("load")).to_contain_text("Load")
    expect(me("generate")).to_be_disabled()
    me.evaluate("() => { fake.end = undefined; }")
    me.load()
    me.generate()
    expect(me("figure-tokens")).to_have_text("4 prompt + 128 generated")


def test_screen_readers_hear_the_text_in_portions(visit: Begin) -> None:
    me = visit({"pause": 40})
    me.load()
    me.evaluate(
        """() => {
          const region = document.getElementById("announcer");
          globalThis.heard = [];
          new MutationObserver(() => heard.push([performance.now(), region.textContent]))
            .observe(region, { childList: true, characterData: true, subtree: true });
        }"""
    )
    me("generate").click()
    me.wait_for_end()
    heard = me.evaluate("() => heard")
    portions = [(at, text) for at, text in heard if len(text) > 30]
    assert portions
    gaps = [after[0] - before[0] for before, after in pairwise(portions)]
    assert all(gap > 2500 for gap in gaps)
    assert heard[-1][1] == "Text finished."


def test_the_text_is_copied(visit: Begin) -> None:
    me = visit(permissions=["clipboard-read", "clipboard-write"])
    me.load()
    text = me.generate()
    me("copy").click()
    expect(me("writing-message")).to_have_text("Text copied.")
    assert me.evaluate("() => navigator.clipboard.readText()") == text
