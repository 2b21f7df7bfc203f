"""The text of the page is edited anywhere, and goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.page.test_page_quality import audit
from tests.browser.page.visit import Visit, written

Begin = Callable[..., Visit]
MARKUP = '<img src=x onerror="globalThis.pwned = 1">'


def test_a_text_goes_on_as_it_was_edited(visit: Begin) -> None:
    me = written(visit)
    whole, tokens = me.text, me("text").locator("[class^=tint]")
    words = tokens.all_text_contents()
    me("edit").press("Enter")
    expect(me("edited")).to_be_focused()
    expect(me("edited")).to_have_value(whole)
    expect(me("story")).to_be_hidden()
    edited = "Once upon a time" + "".join(words[:3]) + " dragon" + "".join(words[4:])
    me("edited").fill(edited)
    me("edited").press("Control+Enter")
    me.wait_for_end()
    assert me.calls("edit")[-1][1] == edited
    assert me.calls("stream")[-1][1] == edited
    assert me.text.startswith(f"{edited} ")
    assert len(me.text.split()) == len(whole.split()) + 6
    # The tokens of before the change keep their probabilities; those after it are other tokens.
    expect(tokens).to_have_count(3 + 6)
    expect(me("text").locator(".prompt")).to_have_text(["Once upon a time", " dragon"])
    expect(me("continue")).to_be_focused()
    me("undo").click()
    expect(me("text")).to_have_text(edited)
    expect(me("writing-message")).to_have_text("")
    expect(me("again")).to_be_disabled()  # nothing was generated after the change
    me("undo").click()
    expect(me("text")).to_have_text(whole)
    expect(tokens).to_have_count(6)
    expect(me("again")).to_be_enabled()
    assert me.evaluate("() => fake.sessions") == 1


def test_done_undo_and_no_change(visit: Begin) -> None:
    me = written(visit, permissions=["clipboard-read", "clipboard-write"])
    whole = me.text
    me("edit").click()
    expect(me("edit")).to_have_text("Done")
    me("edited").press("Escape")
    expect(me("edit")).to_be_focused()
    expect(me("edit")).to_have_text("Edit")
    assert me.calls("edit") == []
    me("edit").click()
    me("edited").press_sequentially(" more")
    me("copy").click()
    assert me.evaluate("() => navigator.clipboard.readText()") == f"{whole} more"
    me("undo").click()
    expect(me("edited")).to_be_hidden()
    expect(me("text")).to_have_text(whole)
    assert me.calls("edit") == []
    me("edit").click()
    me("edited").press_sequentially(" more")
    me("edit").click()
    expect(me("text")).to_have_text(f"{whole} more")
    expect(me("writing-message")).to_have_text("Text changed; tokens kept: 7.")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == f"{whole} more"


def test_a_text_without_a_session_is_edited(visit: Begin) -> None:
    """The example of the page, as it is and changed, and the text of an unloaded model."""
    me = visit()
    expect(me("edit")).to_be_disabled()
    me.load()
    me("maxTokens").fill("3")
    example = me.text
    me("edit").click()
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == example
    me("undo").click()
    me("undo").click()
    expect(me("text")).to_have_text(example)
    expect(me("undo")).to_be_disabled()
    me("edit").click()
    me("edited").fill("A new one")
    me("load").click()  # unload
    me("continue").click()
    expect(me("writing-message")).to_contain_text("There is no model yet")
    expect(me("edited")).to_have_value("A new one")
    me.load()
    me("continue").click()
    me.wait_for_end()
    assert me.text.startswith("A new one ")


def test_a_rejected_edit_stays_in_its_field(visit: Begin) -> None:
    me = written(visit, {"longest": 120})
    whole = me.text
    me("edit").click()
    long = "x" * 121
    me("edited").fill(long)
    for press in (lambda: me("edited").press("Escape"), lambda: me("continue").click()):
        press()
        expect(me("writing-error")).to_contain_text("shorten the text")
        expect(me("edited")).to_have_value(long)
    me("undo").click()
    expect(me("text")).to_have_text(whole)
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == whole


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("abcabc", "abc"),
        ("aaa", "aaaa"),
        ("a🐺b", "a🐻b"),
        ("🐺", ""),
        ("", "x"),
        ("a\r\nb", "a\nc"),
        (MARKUP, f"{MARKUP}{MARKUP}"),
        ("same", "same "),
    ],
)
def test_the_difference_makes_one_text_the_other(visit: Begin, before: str, after: str) -> None:
    me = visit()
    found = me.page.evaluate(
        """async ([before, after]) => {
          const { difference } = await import(new URL("web/page/editor.js", location.href));
          const { from, to, inserted } = difference(before, after);
          const parts = [before.slice(0, from), inserted, before.slice(to)];
          return { text: parts.join(""), whole: parts.every((part) => part.isWellFormed()) };
        }""",
        [before, after],
    )
    assert found == {"text": after, "whole": True}


def test_what_is_typed_stays_text(visit: Begin) -> None:
    me = written(visit)
    me("edit").click()
    me("edited").fill(MARKUP)
    me("edited").press("Control+Enter")
    me.wait_for_end()
    assert me.text.startswith(MARKUP)
    assert me.page.locator("main img").count() == 0
    assert me.evaluate("() => globalThis.pwned ?? 0") == 0


def test_many_edits_hold_no_more(visit: Begin) -> None:
    me = written(visit)
    counts = []
    for count in range(12):
        me("edit").click()
        me("edited").fill(f"Text number {count % 2}")
        me("edited").press("Control+Enter")
        me.wait_for_end()
        counts.append(me.evaluate("() => document.querySelectorAll('*').length"))
    assert len(set(counts[1:])) == 1
    assert me.evaluate("() => fake.sessions") == 1


def test_the_field_is_accessible(visit: Begin, node_modules: Path) -> None:
    me = written(visit, viewport={"width": 320, "height": 640})
    me("edit").click()
    audit(me, node_modules, "small", "editing")
