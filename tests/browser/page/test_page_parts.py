"""A text on the page: its parts, which can be taken back, and the probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


def test_the_probability_of_each_token_is_shown(visit: Begin) -> None:
    me = visit()
    me.load()
    me("seed").fill("1")
    me("maxTokens").fill("4")
    plain = me.generate()
    expect(me("odds-line")).to_be_hidden()
    me("odds").check()
    assert me.generate() == plain
    tokens = me("text").locator("[class^=tint]")
    expect(tokens).to_have_count(4)
    assert tokens.nth(0).get_attribute("class") == "tint-0"
    assert tokens.nth(1).get_attribute("class") == "tint-3"
    expect(me("odds-line")).to_contain_text("Point at a token")
    tokens.nth(1).hover()
    second = tokens.nth(1).text_content()
    expect(me("odds-line")).to_have_text(f"“{second}” 1.0 %. Others: “ fox” 50 %, “ wolf” 25 %")
    me("story").press("ArrowLeft")
    expect(me("odds-line")).to_contain_text("50 %. Others: “ wolf” 25 %")
    expect(tokens.nth(0)).to_have_class("tint-0 current")
    me("odds").uncheck()
    me.generate()
    expect(me("odds-line")).to_be_hidden()
    expect(tokens).to_have_count(0)


def test_tokens_end_where_the_text_ends(visit: Begin) -> None:
    me = visit({"detailsText": " there"})
    me.load()
    me("odds").check()
    me.generate()
    assert len(me.text) == len("Once upon a time there")


def test_a_text_is_continued_taken_back_and_tried_again(visit: Begin) -> None:
    me = visit()
    for name in ("continue", "undo", "again"):
        expect(me(name)).to_be_disabled()
    me.load()
    expect(me("continue")).to_be_disabled()
    me("maxTokens").fill("5")
    first = me.generate()
    me("continue").click()
    me.wait_for_end()
    whole = me.text
    assert whole.startswith(first)
    assert len(whole.split()) == len(first.split()) + 5
    assert me.calls("stream")[-1][1] == first
    me("again").click()
    me.wait_for_end()
    assert me.text.startswith(first) and me.text != whole
    seeds = [call[2]["seed"] for call in me.calls("stream")]
    expect(me("story-label")).to_have_text(f"fairytales, seed {seeds[0]}, {seeds[2]}")
    me("undo").click()
    expect(me("figure-ended")).to_have_text("–")
    assert me.text == first
    me("undo").click()
    expect(me("text")).to_have_text("Once upon a time")
    expect(me("undo")).to_be_disabled()
    me("newSeed").uncheck()
    me("seed").fill(str(seeds[0]))
    me("continue").click()
    me.wait_for_end()
    assert me.text == first
    assert me.evaluate("() => fake.sessions") == 1


def test_the_focus_comes_back_to_continue(visit: Begin) -> None:
    me = visit({"pause": 10})
    me.load()
    me("maxTokens").fill("20")
    me.generate()
    me("continue").press("Enter")
    expect(me("generate")).to_be_focused()
    me.wait_for_end()
    expect(me("continue")).to_be_focused()


def test_a_full_context_and_an_unloaded_model_end_a_text(visit: Begin) -> None:
    me = visit({"context": 6})
    me.load()
    me.generate()
    expect(me("continue")).to_be_disabled()
    expect(me("again")).to_be_enabled()
    me("load").click()
    for name in ("continue", "undo", "again"):
        expect(me(name)).to_be_disabled()


def test_a_stop_text_is_not_part_of_the_session(visit: Begin) -> None:
    me = visit({"reason": "stop_text"})
    me.load()
    me("maxTokens").fill("3")
    text = me.generate()
    assert me.calls("edit") == [["edit", text]]
    expect(me("figure-ended")).to_have_text("stop text")
