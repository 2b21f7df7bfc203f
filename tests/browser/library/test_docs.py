"""The pages in docs/browser.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.library.browsing import Browser
from tests.browser.library.host import Host, Hosted

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
FINISHED = "() => / tokens$/.test(state.value)"  # up to 60: chance may end a story early
PAGES = dict(re.findall(r"<!-- test: (\S+) -->\n```html\n(.*?)```", TEXT, re.DOTALL))
(SCRIPT,) = re.findall(r"^```js\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def addresses(host: Host) -> dict[str, str]:
    """Each page beside the site; with inline scripts, so without the site's strict policy."""
    readme = (
        f"<!doctype html><body><script type=module>{SCRIPT}document.title = 'The end';</script>"
    )
    pages = {**PAGES, "readme.html": readme}
    for name, page in pages.items():
        host.files[f"/a/page/{name}"] = Hosted(page.encode(), kind="text/html", policy=None)
    return {name: f"{host.page}{name}" for name in pages}


def test_the_pages_are_small() -> None:
    assert list(PAGES) == ["javascript.html", "python.html"]
    lines = PAGES["javascript.html"].splitlines()
    assert len(lines) <= 30


def test_the_javascript_page(browser: Browser, addresses: dict[str, str]) -> None:
    tab = browser.open(addresses["javascript.html"])
    tab.wait_for("() => state.value.startsWith('ready on')")
    tab.evaluate("() => generate.click()")
    tab.wait_for(FINISHED)
    story = tab.evaluate("() => story.textContent")
    assert story.startswith("Once upon a time")
    assert len(story) > 100
    tab.evaluate("() => generate.click()")
    tab.wait_for("() => story.textContent.length > 30")
    tab.evaluate("() => document.getElementById('stop').click()")
    tab.wait_for("() => !generate.disabled")
    begin = "(text) => { document.getElementById('prompt').value = text; generate.click(); }"
    tab.evaluate(begin, "The end. " * 1000)
    tab.wait_for("() => !generate.disabled")
    assert "512" in tab.evaluate("() => state.value")  # the error says how much fits
    tab.evaluate(begin, "The end")
    tab.wait_for(FINISHED)
    tab.close()
    assert not [text for text in tab.complaints if "favicon" not in text]


def test_the_python_page(browser: Browser, addresses: dict[str, str]) -> None:
    tab = browser.open(addresses["python.html"])
    tab.wait_for("() => document.title === 'The end'")
    story = tab.evaluate("() => document.getElementById('story').textContent")
    assert story.startswith(" there lived a king")
    tab.close()
    assert not [text for text in tab.complaints if "favicon" not in text]


def test_the_example_of_the_readme(browser: Browser, addresses: dict[str, str]) -> None:
    tab = browser.open(addresses["readme.html"])
    tab.wait_for("() => document.title === 'The end'")
    assert len(tab.evaluate("() => document.body.innerText")) > 50
    tab.close()
    assert not [text for text in tab.complaints if "favicon" not in text]
