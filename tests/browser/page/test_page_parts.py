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
    assert me.calls("stream")[-1][2]["topLogprobs"] == 20
    tokens = me("text").locator("[class^=tint]")
    expect(tokens).to_have_count(4)
    assert tokens.nth(0).get_attribute("class") == "tint-0"
    assert tokens.nth(1).get_attribute("class") == "tint-2"
    expect(me("odds-line")).to_contain_text("Point at a token")
    tokens.nth(1).hover()
    second = tokens.nth(1).text_content()
    about = "rank 7; entropy of the place 3.0 bits"
    expect(me("odds-line")).to_have_text(f"“{second}” 1.0 %, {about}")
    bars = me("odds-bars").locator("tr")
    expect(bars).to_have_text(["“ fox”50 %about 67 %", "“ wolf”25 %about 28 %"])
    width = "bar => bar.offsetWidth / bar.parentElement.clientWidth"
    lengths = [bar.locator(".filled").first.evaluate(width) for bar in bars.all()]
    assert 1 > lengths[0] > lengths[1] > 0.8  # a factor of two is little on a log scale
    me("story").press("ArrowLeft")
    first = tokens.nth(0).text_content()
    expect(bars.first).to_have_text(f"“{first}” (chosen)50 %about 67 %")
    expect(tokens.nth(0)).to_have_class("tint-0 current")
    me("continue").click()  # the tokens of the first part can be chosen still
    me.wait_for_end()
    expect(tokens).to_have_count(8)
    me("story").press("End")
    expect(tokens.nth(7)).to_have_class("tint-2 current")
    me("undo").click()
    expect(tokens).to_have_count(4)
    me.page.get_by_text("All tokens as a table").click()
    rows = me("odds-rows").locator("tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_have_text(f"“{second}”1.0 %73.0 bits")
    me("odds").uncheck()
    me.generate()
    expect(me("odds-line")).to_be_hidden()
    expect(tokens).to_have_count(0)


def test_what_the_sampling_settings_leave_of_the_alternatives(visit: Begin) -> None:
    """A slider redraws at once, and leaves the focus where it is."""
    me = visit()
    me.load()
    me("odds").check()
    me.generate()
    me("story").press("Home")
    bars = me("odds-bars").locator("tr")
    texts = bars.locator(".after")
    expect(texts).to_have_text(["about 67 %", "about 28 %"])
    bars.first.get_by_role("button").focus()
    me("temperature").evaluate("""number => {
      const slider = document.querySelector("[data-for=temperature]");
      slider.value = "0";
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }""")
    expect(texts).to_have_text(["100 %", "cut: greedy"])
    expect(bars.first.get_by_role("button")).to_be_focused()
    assert bars.nth(1).locator(".left").evaluate("bar => bar.offsetWidth") == 0
    me("temperature").fill("1")
    me("topK").fill("1")
    expect(texts).to_have_text(["100 %", "cut: top-k"])
    me("topK").fill("0")
    me("topP").fill("0.4")
    expect(texts).to_have_text(["100 %", "cut: top-p"])
    me("topP").fill("1")
    me("minP").fill("0.6")
    expect(texts).to_have_text(["100 %", "cut: min-p"])
    me("minP").fill("")
    expect(texts).to_have_text(["–", "–"])
    me("minP").fill("0")
    expect(texts).to_have_text(["about 50 %", "about 25 %"])


def test_tokens_end_where_the_text_ends(visit: Begin) -> None:
    """A stop token at its end is not one of them."""
    me = visit({"stopToken": True})
    me.load()
    me("maxTokens").fill("3")
    me("odds").check()
    me.generate()
    tokens = me("text").locator("[class^=tint]")
    expect(tokens).to_have_count(3)
    me("story").press("End")
    expect(tokens.nth(2)).to_have_class("tint-0 current")


def test_tokens_are_tinted_as_they_come(visit: Begin) -> None:
    """None is made twice, and one that is selected stays so; the announcements are as without."""
    me = visit({"pause": 60})
    me.load()
    me("odds").check()
    me("maxTokens").fill("40")
    me.evaluate(_WATCH)
    me("generate").click()
    tokens = me("text").locator("[class^=tint]")
    expect(tokens.nth(1)).to_have_class("tint-2")
    expect(me("odds-line")).to_have_text("")
    tokens.nth(1).click()
    expect(tokens.nth(1)).to_have_class("tint-2 current")
    expect(me("odds-bars").locator("tr").first).to_contain_text("“ fox”50 %")
    me("odds-bars").get_by_role("button").last.click()
    expect(me("writing-message")).to_contain_text("press Esc to stop it")
    expect(me("generate")).to_have_text("Stop")
    me.wait_for_end()
    expect(tokens).to_have_count(40)
    expect(tokens.nth(1)).to_have_class("tint-2 current")
    assert me.evaluate("() => removed") == 0
    lines = me.evaluate("() => lines")
    assert len(lines) == 1, lines  # of the token that was selected
    assert len(me.evaluate("() => announced")) <= 3


_WATCH = """() => {
  Object.assign(globalThis, { removed: 0, lines: [], announced: [] });
  const watch = (id, note) => {
    const node = document.getElementById(id);
    const options = { childList: true, characterData: true, subtree: true };
    new MutationObserver((changes) => note(changes, node.textContent)).observe(node, options);
  };
  watch("text", (changes) => {
    if (!document.querySelector("[class^=tint]")) return; // the text before
    for (const { target, removedNodes } of changes) {
      if (target.id !== "text") removed += removedNodes.length;
    }
  });
  watch("odds-line", (_, text) => text && lines.push(text));
  watch("announcer", (_, text) => announced.push(text));
}"""


def test_a_text_that_is_stopped_keeps_its_probabilities(visit: Begin) -> None:
    me = visit({"pause": 30})
    me.load()
    me("odds").check()
    me("generate").click()
    tokens = me("text").locator("[class^=tint]")
    expect(tokens.nth(3)).to_be_attached()
    me.page.keyboard.press("Escape")
    me.wait_for_end()
    expect(me("figure-ended")).to_have_text("stopped")
    me("story").press("Home")
    expect(me("odds-line")).to_contain_text("50 %, rank 1")
    assert me.text == "Once upon a time" + "".join(tokens.all_text_contents())


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
    assert me.text.startswith(first)
    seeds = [call[2]["seed"] for call in me.calls("stream")]
    assert seeds[2] != seeds[1]
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
    expect(me("figure-ended")).to_have_text("stop text")
    # Its last tokens are "… The" and " End": what was computed for the others is kept.
    last = " " + text.split(" ")[-1]
    assert me.calls("rewind") + me.calls("append") == [["rewind", 2], ["append", last]]
    assert me.calls("edit") == []
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == text


def test_a_rejected_prompt_leaves_the_text(visit: Begin) -> None:
    """Of a session, of its next text, and of a text that was to replace the last part."""
    me = visit({"longest": 60})
    me.load()
    example = me.text
    me("prompt").fill("x" * 61)
    me("generate").click()
    expect(me("writing-error")).to_contain_text("shorten the text")
    assert me.text == example
    me("prompt").fill("Long ago")
    me("maxTokens").fill("3")
    me("odds").check()
    written, label = me.generate(), me("story-label").text_content() or ""
    me("prompt").fill("x" * 61)
    me("generate").click()
    expect(me("writing-error")).not_to_be_empty()
    me.evaluate("() => { fake.running = 1; }")  # from here on the model itself is busy
    for name in ("prompt", "continue", "again"):
        me("prompt").fill("Other")
        me(name).press("Enter")
        expect(me("writing-error")).to_have_text("This model is writing already.")
        expect(me("again")).to_be_enabled()
        assert (me.text, me("story-label").text_content()) == (written, label)
    me("story").press("ArrowRight")  # the probabilities are there still
    expect(me("odds-line")).to_contain_text("50 %, rank 1")
    me.evaluate("() => { fake.running = 0; fake.pause = 500; }")
    me("prompt").fill("Other")
    me("generate").click()
    expect(me("generate")).to_have_text("Stop")
    me.page.keyboard.press("Escape")  # before the first token
    expect(me("generate")).to_have_text("Generate")
    assert (me.text, me("story-label").text_content()) == (written, label)
    me.evaluate("() => { fake.pause = 1; }")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == written
    me("undo").click()
    me("undo").click()
    expect(me("text")).to_have_text("Long ago")
    assert me.evaluate("() => fake.sessions") == 1


def test_enter_does_something_everywhere(visit: Begin) -> None:
    me = visit({"pause": 30})
    expect(me("load")).to_be_enabled()
    me("prompt").press("Enter")
    expect(me("writing-message")).to_have_text("There is no model yet: press Load above.")
    me("console-toggle").click()
    me("code").fill("gw.memory()")
    me("code").press("Enter")
    expect(me("console-log")).to_contain_text("There is no model yet")
    expect(me("code")).to_have_value("gw.memory()")
    me.load()
    expect(me("writing-message")).to_have_text("")
    me("temperature").fill("0.5")
    me("temperature").press("Enter")
    expect(me("generate")).to_have_text("Stop")
    me("prompt").press("Enter")
    expect(me("writing-message")).to_contain_text("press Esc to stop it")
    me.page.keyboard.press("Escape")
    me.wait_for_end()
    assert [call[2]["temperature"] for call in me.calls("stream")] == [0.5]


def test_several_texts_are_generated_and_one_is_continued(visit: Begin) -> None:
    me = visit(permissions=["clipboard-read", "clipboard-write"])
    me.load()
    me("maxTokens").fill("4")
    me("seed").fill("7")
    alone = me.generate()
    me("seed").fill("6")
    me("numReturnSequences").fill("3")
    me.generate()
    expect(me("story-label")).to_have_text("fairytales, seeds 6 to 8")
    expect(me("figure-tokens")).to_have_text("4 prompt + 11 generated")
    assert me.calls("stream")[-1][1] == ["Once upon a time"]
    assert me.calls("stream")[-1][2]["numReturnSequences"] == 3
    texts = [each.text_content() or "" for each in me("text").locator(".version").all()]
    assert "Once upon a time" + texts[1] == alone  # each is that of its seed
    me("copy").click()
    expect(me("writing-message")).to_have_text("Text copied.")
    copied = me.evaluate("() => navigator.clipboard.readText()")
    assert copied == "\n".join(["Once upon a time", *texts])
    expect(me("continue")).to_be_disabled()
    me("share").click()
    assert "numReturnSequences=3" in me.page.url
    me.page.get_by_role("button", name="Continue with text 2").press("Enter")
    expect(me("continue")).to_be_focused()
    assert me.text == alone
    expect(me("story-label")).to_have_text("fairytales, seed 7")
    me("continue").click()
    me.wait_for_end()
    assert me.calls("stream")[-1][1] == alone
    me("undo").click()
    me("undo").click()
    expect(me("text")).to_have_text("Once upon a time")
    assert me.evaluate("() => fake.sessions") == 1
