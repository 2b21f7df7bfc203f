"""Branches of the text: another token in the place of one, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit, written

Begin = Callable[..., Visit]
MARKUP = '<img src=x onerror="globalThis.pwned = 1">'


def selected(visit: Begin, fake: dict[str, object] | None = None, **options: object) -> Visit:
    """The page with a text of six tokens, the third of them selected."""
    me = written(visit, fake, **options)
    me("story").press("Home")
    me("story").press("ArrowRight")
    me("story").press("ArrowRight")
    return me


def choose(me: Visit, piece: str = " wolf") -> None:
    me("odds-bars").get_by_role("button", name=f"Go on with “{piece}”").press("Enter")
    me.wait_for_end()


def branches(me: Visit) -> list[str]:
    return [each.text_content() or "" for each in me("branch-list").locator("button").all()]


def test_an_alternative_begins_a_branch(visit: Begin) -> None:
    me = selected(visit)
    whole, tokens = me.text, me("text").locator("[class^=tint]")
    third = tokens.nth(2).text_content()
    start = "Once upon a time" + "".join(tokens.all_text_contents()[:2])
    expect(me("branches")).to_be_hidden()
    choose(me)
    assert me.text.startswith(f"{start} wolf ")
    assert len(me.text.split()) == len(start.split()) + 1 + 6
    forced = tokens.nth(2)
    expect(forced).to_have_class("tint-1 forced current")
    expect(me("odds-line")).to_contain_text("“ wolf” 25 %, rank 2; entropy of the place 3.0 bits")
    expect(me("story")).to_be_focused()
    seeds = [call[2]["seed"] for call in me.calls("stream")]
    expect(me("story-label")).to_have_text(f"fairytales, seed {seeds[0]}, {seeds[1]}")
    # The session has the ids of before, and the one that was chosen: nothing is encoded again.
    assert [type(each) for each in me.calls("edit")[-1][1]] == [int] * 4
    assert me.calls("stream")[-1][1] == f"{start} wolf"
    end = start if len(start) <= 24 else f"…{start[-24:]}"
    names = ["The first text", f"“ wolf” instead of “{third}”, after “{end}” (shown)"]
    assert branches(me) == names
    branch = me.text
    me("branch-list").get_by_role("button").first.press("Enter")
    expect(me("text")).to_have_text(whole)
    expect(me("story")).to_be_focused()
    expect(me("branch-list").locator('[aria-current="true"]')).to_have_text(
        "The first text (shown)"
    )
    me("continue").click()  # the first text goes on as itself
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == whole
    longer = me.text
    me("branch-list").get_by_role("button").last.click()
    expect(me("text")).to_have_text(branch)
    me("branch-list").get_by_role("button").first.click()
    expect(me("text")).to_have_text(longer)
    assert me.evaluate("() => fake.sessions") == 1


def test_undo_and_try_again_in_a_branch(visit: Begin) -> None:
    me = selected(visit)
    whole = me.text
    label = me("story-label").text_content() or ""
    choose(me)
    me("again").click()
    me.wait_for_end()
    branch, anew = me.calls("stream")[-2:]
    assert branch[1] == anew[1]  # the token stays
    assert branch[2]["seed"] != anew[2]["seed"]
    second = me.text
    me("continue").click()
    me.wait_for_end()
    me("undo").click()
    expect(me("text")).to_have_text(second)
    me("undo").click()
    expect(me("text")).to_have_text(whole)
    expect(me("story-label")).to_have_text(label)
    me("story").press("End")  # its probabilities are back, too
    expect(me("text").locator("[class^=tint]").nth(5)).to_have_class("tint-2 current")
    me("branch-list").get_by_role("button").last.click()  # what was undone is not lost
    expect(me("text")).to_have_text(second)
    me("undo").click()
    me("undo").click()
    expect(me("text")).to_have_text("Once upon a time")
    expect(me("undo")).to_be_disabled()


def test_a_branch_of_a_branch_and_of_a_later_part(visit: Begin) -> None:
    me = selected(visit)
    me("continue").click()
    me.wait_for_end()
    tokens = me("text").locator("[class^=tint]")
    expect(tokens).to_have_count(12)
    tokens.nth(8).click()
    tokens.nth(1).hover()  # the pointer's way to the bars selects nothing else
    expect(tokens.nth(8)).to_have_class("tint-0 current")
    eight = "".join(tokens.all_text_contents()[:8])
    choose(me)
    assert me.calls("stream")[-1][1] == f"Once upon a time{eight} wolf"
    tokens.nth(3).click()
    three = "".join(tokens.all_text_contents()[:3])
    choose(me)
    assert me.calls("stream")[-1][1] == f"Once upon a time{three} wolf"
    assert len(branches(me)) == 3
    me("undo").click()
    expect(tokens.nth(8)).to_have_text(" wolf")
    expect(me("branch-list").locator("[aria-current]")).to_contain_text("“ wolf” instead of")
    me("generate").click()
    expect(me("branches")).to_be_hidden()  # another text
    me.wait_for_end()


def test_a_branch_that_fails_changes_nothing(visit: Begin) -> None:
    me = selected(visit)
    whole, label = me.text, me("story-label").text_content() or ""
    me.evaluate("() => { fake.running = 1; }")
    me("odds-bars").get_by_role("button").last.click()
    expect(me("writing-error")).to_have_text("This model is writing already.")
    expect(me("text")).to_have_text(whole)
    expect(me("story-label")).to_have_text(label)
    expect(me("branches")).to_be_hidden()
    expect(me("text").locator(".current")).to_have_text(
        me("text").locator("[class^=tint]").nth(2).text_content() or ""
    )
    me.evaluate("() => { fake.running = 0; fake.pause = 500; }")
    me("odds-bars").get_by_role("button").last.click()
    expect(me("generate")).to_have_text("Stop")
    me.page.keyboard.press("Escape")  # before the first token
    expect(me("generate")).to_have_text("Generate")
    expect(me("text")).to_have_text(whole)
    expect(me("branches")).to_be_hidden()
    me.evaluate("() => { fake.pause = 1; }")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == whole
    me("load").click()  # unload
    me("odds-bars").get_by_role("button").first.or_(me("story")).first.click()
    expect(me("generate")).to_be_disabled()


def test_tokens_of_another_model_are_no_branch(visit: Begin) -> None:
    me = selected(visit)
    me("load").click()
    me.load()
    me("story").press("Home")
    me("odds-bars").get_by_role("button").last.click()
    expect(me("writing-error")).to_contain_text("not one of the loaded model")
    assert len(me.calls("stream")) == 1


@pytest.mark.parametrize("piece", [MARKUP, "\u202e\n\x00{{1}}"])
def test_a_hostile_token_stays_text(visit: Begin, piece: str) -> None:
    me = selected(visit, {"likely": piece})
    me("odds-bars").get_by_role("button").last.click()
    me.wait_for_end()
    assert piece in me.text
    assert piece.replace("\n", "⏎") in branches(me)[1]
    assert me.evaluate("() => globalThis.pwned ?? 0") == 0
    assert me.page.locator("img").count() == 0


def test_a_part_of_a_character_cannot_be_chosen(visit: Begin) -> None:
    me = selected(visit, {"likely": "\ufffd"})
    expect(me("odds-bars").get_by_role("button").last).to_be_disabled()


def test_the_list_of_branches_is_bounded(visit: Begin) -> None:
    """Twenty of them, and as many elements after thirty as after twenty-five."""
    me = selected(visit)
    me.page.set_viewport_size({"width": 320, "height": 700})
    me.still = False
    for count in range(30):
        me("story").press("Home")
        me("story").press("ArrowRight")
        choose(me)
        if count == 24:
            elements = me.evaluate("() => document.querySelectorAll('*').length")
    assert len(branches(me)) == 20
    assert me.evaluate("() => document.querySelectorAll('*').length") == elements
    assert me.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    assert me.evaluate("() => fake.sessions") == 1


def test_undo_to_before_the_session_leaves_no_branches(visit: Begin) -> None:
    """Their session is closed then."""
    me = visit()
    me.load()
    me("maxTokens").fill("6")
    me("odds").check()
    me("edit").press("Enter")
    me("edited").fill("Once upon a time")
    me("edited").press("Control+Enter")
    me.wait_for_end()
    me("story").press("Home")
    choose(me)
    expect(me("branches")).to_be_visible()
    while me("undo").is_enabled():
        me("undo").click()
    expect(me("branches")).to_be_hidden()
    me.generate()
    assert me.text.startswith("Once upon a time")
