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
    for name, page in PAGES.items():
        host.files[f"/a/page/{name}"] = Hosted(page.encode(), kind="text/html", policy=None)
    return {name: f"{host.page}{name}" for name in PAGES}


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


def test_the_example_of_the_readme() -> None:
    """It is that of the npm package, which clients/test_npm_package.py runs."""
    text = (ROOT / "docs" / "npm.md").read_text(encoding="utf-8")
    (page,) = re.findall(r"<!-- test: importmap.html -->\n```html\n(.*?)```", text, re.DOTALL)
    assert SCRIPT.replace("./web/gpt2.js", "gpt2-wgpu") in page.replace("\n  ", "\n")
