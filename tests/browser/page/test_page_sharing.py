"""Shared links: they restore settings, run nothing, and their contents stay text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit, written

MODEL = Path(__file__).parents[3] / "models" / "fairytales"
Begin = Callable[..., Visit]
MARKUP = '<img src=x onerror="globalThis.pwned = 1"><script>globalThis.pwned = 2</script>'


def test_a_link_brings_everything_back(visit: Begin) -> None:
    me = visit(permissions=["clipboard-read", "clipboard-write"])
    me.load()
    me("prompt").fill("Der König & die Hexe\n„100 %“ 🐺 #1")
    settings = {"temperature": "1.1", "topK": "7", "topP": "0.5", "repetitionPenalty": "1.2"}
    for name, value in {**settings, "maxTokens": "9"}.items():
        me(name).fill(value)
    text = me.generate()
    me("share").click()
    expect(me("writing-message")).to_have_text("Link copied.")
    link = me.evaluate("() => navigator.clipboard.readText()")
    assert link == me.page.url

    me.open(link)
    expect(me("load")).to_be_enabled()
    assert me.calls("load") == me.calls("stream") == []  # a link never runs by itself
    assert me("prompt").input_value() == "Der König & die Hexe\n„100 %“ 🐺 #1"
    expect(me("newSeed")).not_to_be_checked()
    for name, value in settings.items():
        expect(me(name)).to_have_value(value)
    me.load()
    assert me.generate() == text


def shared(me: Visit) -> str:
    """The fragment of a link to what the page shows."""
    me("share").click()
    expect(me("writing-message")).to_contain_text("ink")
    return "#" + me.page.url.partition("#")[2]


def follow(me: Visit, fragment: str) -> None:
    """Opens a link on the page."""
    for each in ("#", fragment):
        me.evaluate(f"() => {{ location.hash = {json.dumps(each)}; }}")
    expect(me("story-label")).to_contain_text("From a link")


def test_a_link_brings_text_and_branch_back(visit: Begin) -> None:
    me = visit()
    me.load()
    me("maxTokens").fill("5")
    me("odds").check()
    me.generate()
    me("story").press("Home")
    me("odds-bars").get_by_role("button").last.press("Enter")
    me.wait_for_end()
    text = me.text
    name = (me("branch-list").locator("[aria-current]").text_content() or "")[: -len(" (shown)")]
    link = shared(me)
    me("generate").click()
    me.wait_for_end()
    streams = len(me.calls("stream"))
    follow(me, link)
    expect(me("text")).to_have_text(text)
    expect(me("text").locator(".prompt")).to_have_text("Once upon a time")
    expect(me("story-label")).to_have_text(f"From a link: {name}")
    assert branches(me) == ["The first text", f"{name} (shown)"]
    assert len(me.calls("stream")) == streams  # it runs nothing
    assert shared(me) == link
    me("continue").click()
    me.wait_for_end()
    assert len(me.calls("edit")[-1][1]) == 1 + 1 + 5  # the tokens of the link: prompt, choice, text
    assert me.calls("stream")[-1][1] == text
    expect(me("writing-message")).to_have_text("")
    me("undo").click()
    expect(me("text")).to_have_text(text)
    assert me.evaluate("() => fake.sessions") == 1


def branches(me: Visit) -> list[str]:
    return me("branch-list").locator("button").all_text_contents()


def branched(visit: Begin, fake: dict[str, object] | None = None) -> tuple[Visit, list[str]]:
    """The page with three branches, the second of them shown, and their texts."""
    me = written(visit, fake)
    texts = [me.text]
    for key in ("Home", "End"):
        me("story").press(key)
        me("odds-bars").get_by_role("button").last.press("Enter")
        me.wait_for_end()
        texts.append(me.text)
    me("branch-list").get_by_role("button").nth(1).click()
    expect(me("text")).to_have_text(texts[1])
    return me, texts


def test_a_link_brings_all_branches_back(visit: Begin) -> None:
    me, texts = branched(visit)
    names = branches(me)
    link = shared(me)
    me("load").click()  # unloads the model
    me.evaluate("() => { fake.sessions = 0; }")
    follow(me, link)
    assert branches(me) == names
    for at in (2, 0, 1, 0):  # they can be read without a model
        me("branch-list").get_by_role("button").nth(at).click()
        expect(me("text")).to_have_text(texts[at])
        expect(me("story")).to_be_focused()
    again = shared(me)
    assert sorted(again.split("&")) != sorted(link.split("&"))  # another one is shown
    follow(me, again)
    expect(me("text")).to_have_text(texts[0])
    assert [each.removesuffix(" (shown)") for each in branches(me)] == [
        each.removesuffix(" (shown)") for each in names
    ]
    me.load()
    assert len(branches(me)) == 3
    me("branch-list").get_by_role("button").nth(1).click()
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == texts[1]
    longer = me.text
    me("branch-list").get_by_role("button").nth(2).click()  # of the link, in the same session
    expect(me("text")).to_have_text(texts[2])
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == texts[2]
    assert len(me.calls("edit")[-1][1]) == 1 + 6 + 6 + 1  # the tokens of the link
    me("branch-list").get_by_role("button").nth(1).click()
    expect(me("text")).to_have_text(longer)
    expect(me("writing-message")).to_have_text("")
    assert me.evaluate("() => fake.sessions") == 1
    me("generate").click()
    expect(me("branches")).to_be_hidden()
    me.wait_for_end()


def test_a_link_names_the_branches_that_it_has_no_room_for(visit: Begin) -> None:
    me, _ = branched(visit, {"piece": "x" * 2000})
    me.still = False
    names = branches(me)
    link = shared(me)
    expect(me("writing-message")).to_contain_text(f"It has no room for a branch: {names[2]}.")
    assert len(me.page.url) <= 32_000
    follow(me, link)
    assert branches(me) == names[:2]


@pytest.mark.parametrize(
    "also", ["x", "[]", "[0,1,2,3,4]", '[-1,"a",0,"1","b"]', '[null,"a",0,"1","b"]', "{}", "null"]
)
def test_nonsense_for_branches_leaves_the_text(visit: Begin, also: str) -> None:
    other = json.dumps([4, MARKUP, 0, "x", MARKUP])
    fields = f"#text=Long%20ago&also={quote(also)}&also={quote(other)}&place=7.5"
    me = visit(fragment=fields)
    expect(me("text")).to_have_text("Long ago")
    expect(me("link-damaged")).to_be_visible()
    assert branches(me) == [MARKUP, "The first text (shown)"]
    me("branch-list").get_by_role("button").first.click()
    expect(me("text")).to_have_text(f"Long{MARKUP}")
    me.load()
    me("maxTokens").fill("2")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == f"Long{MARKUP}"
    assert me.evaluate("() => globalThis.pwned ?? 0") == 0


def test_the_text_of_a_link_waits_for_its_model(visit: Begin) -> None:
    """Tokens that another model does not have are those of the text, and the page says so."""
    me = visit(fragment="#prompt=Long&text=Long+ago&ids=1+99&maxTokens=3")
    expect(me("text")).to_have_text("Long ago")
    me("continue").click()
    expect(me("writing-message")).to_contain_text("There is no model yet")
    me.load()
    expect(me("text")).to_have_text("Long ago")
    me.evaluate("() => { fake.running = 1; }")
    me("continue").click()
    expect(me("writing-error")).to_have_text("This model is writing already.")
    me.evaluate("() => { fake.running = 0; }")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == "Long ago"
    expect(me("writing-message")).to_contain_text("tokens of another model")
    assert me.evaluate("() => fake.sessions") == 1
    me("edit").click()
    me("edited").fill("Edited")
    assert "text=Edited&" in shared(me)
    assert "ids=" not in me.page.url
    me("edited").press("Escape")
    me.generate()  # another text
    assert "text=Long" in shared(me)


@pytest.mark.parametrize("ids", ["x", "-1", "1e9", "1+" * 5000, "99999999999", ""])
def test_nonsense_for_tokens_leaves_the_text(visit: Begin, ids: str) -> None:
    me = visit(fragment=f"#text={quote(MARKUP)}&branch={quote(MARKUP)}&ids={ids}&maxTokens=2")
    expect(me("text")).to_have_text(MARKUP)
    expect(me("story-label")).to_have_text(f"From a link: {MARKUP}")
    expect(me("link-damaged")).to_be_visible(visible=ids != "")
    me.load()
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == MARKUP
    expect(me("writing-message")).to_have_text("")
    assert me.evaluate("() => globalThis.pwned ?? 0") == 0


@pytest.mark.parametrize(("count", "kept"), [(4096, True), (4097, False)])
def test_a_link_has_no_tokens_that_none_reads(visit: Begin, count: int, kept: bool) -> None:
    """Of more it has the text alone; so of a branch, also of one that begins as the text."""
    me = visit()
    *found, odd = me.page.evaluate(
        """async (count) => {
          const url = new URL("web/page/share.js", document.baseURI);
          const { linkTo, readLink } = await import(url.href);
          const made = (text, length, id) => ({ text, ids: Array(length).fill(id), branch: text });
          const [linked, ...others] =
            [made("text", count, 1), made("te", 9, 1), made("x", count, 2)];
          const { href, left } = linkTo("", { linked, others, place: 0 }, {}, [], {});
          const { texts, damaged } = readLink(new URL(href).hash);
          const seen = [texts.linked, ...texts.others].map(({ text, ids }) => [text, ids.length]);
          return [...seen, Boolean(damaged) || left.length];
        }""",
        count,
    )
    tokens = count if kept else 0
    assert found == [["text", tokens], ["te", 9], ["x", tokens]] and not odd


def test_a_link_names_the_model_and_waits(visit: Begin) -> None:
    me = visit(fragment="#prompt=Hello&model=openai-community/gpt2")
    expect(me("candidate-name")).to_have_text("openai-community/gpt2")
    expect(me("load")).to_have_text("Check size")
    me("load").click()
    expect(me("load")).to_have_text("Load · 15.1 MB")
    assert me.calls("load") == []
    me.load()
    me("share").click()
    assert "model=openai-community%2Fgpt2" in me.page.url


def test_a_link_describes_what_wrote_the_text(visit: Begin) -> None:
    """Not what was looked up since, nor what "Weights as" would say of the next one."""
    me = visit()
    me("dtype").select_option("q8")
    me.load()
    me.generate()
    me.page.locator("#others summary").click()
    me("remote-source").fill("a/b")
    me("remote-source").press("Enter")
    expect(me("load")).to_have_text("Load · 15.1 MB")
    me("dtype").select_option("float32")
    me("share").click()
    assert "a%2Fb" not in me.page.url
    assert "dtype=q8" in me.page.url
    me.open(me.page.url)
    expect(me("candidate-name")).to_have_text("fairytales")
    expect(me("dtype")).to_have_value("q8")
    me.load()
    assert me.calls("load") == [["load", "fairytales", "q8"]]


def test_a_link_names_the_dtype_that_was_chosen_by_itself(visit: Begin) -> None:
    me = visit()
    me.load()
    me("share").click()
    assert "dtype=float16" in me.page.url


def test_a_link_says_that_it_carries_no_folder(visit: Begin) -> None:
    me = visit()
    expect(me("load")).to_be_enabled()
    me("folder").set_input_files(MODEL)
    expect(me("candidate-note")).to_contain_text("From a folder")
    me.load()
    me("share").click()
    expect(me("writing-message")).to_contain_text("does not include the model")
    assert "model=" not in me.page.url


@pytest.mark.parametrize("late", [False, True])
def test_a_link_contacts_nobody_by_itself(visit: Begin, late: bool) -> None:
    """The sender of a link must not learn who opened it, or when."""
    host = "http://tracker.example/models/x"
    fragment = f"#model={quote(host)}"
    me = visit() if late else visit(fragment=fragment)
    if late:
        expect(me("load")).to_have_text("Load · 15.1 MB")
        me.page.evaluate("fragment => { location.hash = fragment; }", fragment)
    expect(me("load")).to_have_text("Check size")
    expect(me("load")).to_be_enabled()
    expect(me("candidate-size")).to_contain_text("Press Check size")
    expect(me("remote-source")).to_have_value(host)
    me.page.wait_for_timeout(200)
    assert [call for call in me.calls("size") if call[1] == host] == []
    me("load").click()
    expect(me("load")).to_have_text("Load · 15.1 MB")
    assert me.calls("size")[-1] == ["size", host]
    assert me.calls("load") == []


@pytest.mark.parametrize(
    "fragment",
    [
        "#temperature=hot&topK=-4&topP=7&maxTokens=1e99&seed=-1",
        "#temperature=NaN&topK=2.5&topP=&maxTokens=0&seed=99999999999999",
        "#repetitionPenalty=0",
        "#%%%&=&&temperature",
        "#dtype=float8",
    ],
)
def test_nonsense_in_a_link_changes_nothing(visit: Begin, fragment: str) -> None:
    me = visit(fragment=fragment)
    names = ("temperature", "topK", "topP", "repetitionPenalty", "maxTokens")
    assert [me(name).input_value() for name in names] == ["0.8", "40", "0.95", "1.1", "128"]
    expect(me("dtype")).to_have_value("")
    me.load()
    me.generate()


@pytest.mark.parametrize(
    ("prompt", "shown", "damaged"),
    [
        ("Der K%C3%B6n", "Der Kön", False),
        ("Der K%C3n", "Der K�n", True),
        ("The wolf %F0%9F%90", "The wolf �", True),  # cut short
        ("100 %", "100 %", False),
        ("%EF%BF%BD is U%2BFFFD", "� is U+FFFD", False),
        ("%ef%bf%bd and %ff", "� and �", True),
    ],
)
def test_a_link_that_lost_characters_is_named(
    visit: Begin, prompt: str, shown: str, damaged: bool
) -> None:
    me = visit(fragment=f"#topK=3&prompt={prompt}")
    expect(me("prompt")).to_have_value(shown)
    expect(me("link-damaged")).to_be_visible(visible=damaged)
    me.evaluate("() => { location.hash = '#prompt=whole'; }")
    expect(me("link-damaged")).to_be_hidden()


def test_the_damage_of_a_link_is_not_that_of_the_next_text(visit: Begin) -> None:
    me = visit(fragment="#prompt=The+wolf+%F0")
    expect(me("link-damaged")).to_be_visible()
    me.load()
    me("prompt").fill("The wolf")
    me.generate()
    expect(me("link-damaged")).to_be_hidden()


def test_a_new_fragment_on_an_open_page_is_taken(visit: Begin) -> None:
    me = visit()
    me.evaluate("() => { location.hash = '#prompt=Another&topK=3'; }")
    expect(me("prompt")).to_have_value("Another")
    expect(me("topK")).to_have_value("3")


def test_nothing_that_comes_in_becomes_markup(visit: Begin) -> None:
    name = MARKUP
    rows = [{"id": name, "name": name, "bytes": 1, "complete": True}]
    fake = {"piece": MARKUP, "stored": rows, "check": _check(), "console": {"1": _answer()}}
    me = visit(fake, fragment=f"#prompt={quote(MARKUP)}&model={quote(MARKUP)}")
    me.still = False  # such names are long
    me("load").click()
    expect(me("load")).to_contain_text("Load ·")
    me.load()
    me("maxTokens").fill("3")
    me("odds").check()
    assert me.generate() == MARKUP * 4
    me("story").press("Home")
    me.page.get_by_text("All tokens as a table").click()
    for part in ("odds-line", "odds-bars", "odds-rows"):
        expect(me(part)).to_contain_text(MARKUP)
    me("console-toggle").click()
    me("code").fill("1")
    me("code").press("Enter")
    expect(me("console-log")).to_contain_text(MARKUP)
    expect(me("adapter")).to_contain_text("<img")
    assert me.evaluate("() => globalThis.pwned ?? 0") == 0
    assert me.page.locator("img, main script").count() == 0


def _check() -> dict[str, object]:
    return {"ok": True, "adapter": {"name": MARKUP, "software": False}, "warnings": [MARKUP]}


def _answer() -> dict[str, str]:
    return {"output": MARKUP, "result": MARKUP}
