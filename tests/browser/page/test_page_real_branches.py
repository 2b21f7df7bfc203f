"""Branches of a text in the built site, with the real library, Python and WebGPU (in software)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.page.visit import Visit

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
EXAMPLE = DOCS.partition("## The page: branches")[2].split("```")[1].removeprefix("js")
SLOW = 180_000  # milliseconds: Python and its model start on a busy CPU

Begin = Callable[..., Visit]


def test_a_branch_and_its_link_are_the_text_of_their_tokens(real: Begin) -> None:
    """Prefix, chosen token and what follows, token by token, against one call with those ids."""
    me = real()
    for dtype in ("float16", "q8"):
        me("dtype").select_option(dtype)
        me.load(SLOW)
        assert me.evaluate("() => lm.info.dtype") == dtype
        me.evaluate(f"async () => {{ {EXAMPLE} }}")  # of the docs: it runs
        for name, value in {"prompt": "The wolf", "temperature": "1", "seed": "4"}.items():
            me(name).fill(value)
        me("maxTokens").fill("6")
        me("odds").check()
        me.generate(SLOW)
        me("story").press("Home")
        me("story").press("ArrowRight")
        me("odds-bars").get_by_role("button").nth(3).press("Enter")
        expect(me("branches")).to_be_visible(timeout=SLOW)
        me.wait_for_end(SLOW)
        pieces = me("text").locator("[class^=tint]").all_text_contents()
        expected = me.evaluate(f"({_BRANCH})")
        assert pieces == expected["pieces"]
        assert me.text == expected["text"]
        me("share").click()
        expect(me("writing-message")).to_contain_text("ink")  # copied, or in the address bar
        link = "#" + me.page.url.partition("#")[2]
        for fragment in ("#", link):
            me.evaluate(f"() => {{ location.hash = {json.dumps(fragment)}; }}")
        expect(me("story-label")).to_contain_text("From a link: “")
        assert me.text == expected["text"]
        me("continue").click()
        me.wait_for_end(SLOW)
        assert me.text == expected["text"] + expected["after"]
        me("load").click()  # unloads it
        expect(me("load")).to_contain_text("Load")


_BRANCH = """async () => {
  const sampling = { temperature: 1, topK: 40, topP: 0.95, repetitionPenalty: 1.1, seed: 4 };
  const settings = { ...sampling, maxTokens: 6, details: true, topLogprobs: 20, wait: true };
  const first = await lm.generate("The wolf", settings);
  const session = await lm.session("The wolf");
  const prompt = await session.tokenIds();
  await session.close();
  const ids = [...prompt, first.tokenIds[0], first.top[1][3].id];
  const next = await lm.generate(ids, settings);
  const tokens = [...ids.slice(-2), ...next.tokenIds];
  const text = await lm.tokenizer.decode([...ids, ...next.tokenIds].slice(1)); // no start token
  const after = await lm.generate([...ids, ...next.tokenIds], settings);
  return { pieces: await lm.tokenizer.pieces(tokens), text, after: after.text };
}"""
