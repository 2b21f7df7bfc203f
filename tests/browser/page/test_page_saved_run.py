""" "Save run" on the page: a file, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


def test_a_run_is_saved(visit: Begin) -> None:
    me = visit()
    me("save-run").click()
    expect(me("writing-message")).to_contain_text("There is no generated text to save yet")
    me.load()
    me("maxTokens").fill("3")
    text = me.generate()
    with me.page.expect_download() as download:
        me("save-run").press("Enter")
    assert download.value.suggested_filename == "run.json"
    run = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert run == {"format": "gpt2-wgpu run", "text": text}
    expect(me("writing-message")).to_have_text(
        "Saved as run.json: check it with gpt2-wgpu replay run.json."
    )


def test_a_text_without_a_run(visit: Begin) -> None:
    me = visit({"noRun": "no part of this text was generated <b>"})
    me.load()
    me("maxTokens").fill("3")
    me.generate()
    me("save-run").click()
    expect(me("writing-message")).to_have_text("No part of this text was generated <b>")
