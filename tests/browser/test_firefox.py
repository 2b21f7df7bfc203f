"""The built site in Firefox, whose WebGPU compiles WGSL with another compiler (naga)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bootstrap import NO_FIREFOX, find_firefox

import gpt2_wgpu as gw
from tests.browser.firefox import Firefox

PROMPT = "Once upon a time"
LOAD = """async () => {
  globalThis.lm = await GPT2.load("fairytales", { dtype: "float16" });
}"""
CLICK = "(id) => document.getElementById(id).click()"


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """One Firefox for this file."""
    found = find_firefox()
    if found is None:
        pytest.skip(NO_FIREFOX)
    running = Firefox(found, tmp_path_factory.mktemp("firefox"))
    yield running
    complaints = running.complaints
    running.close()
    assert not complaints


def test_module_and_library(firefox: Firefox, address: str, device: gw.Device) -> None:
    """The JavaScript module streams the native text; its Python blocks and reads numbers."""
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile("greedy")
        native = "".join(lm.stream(PROMPT, max_new_tokens=40))
    firefox.open(f"{address}tests/library.html")
    firefox.wait_for("() => Boolean(globalThis.GPT2)")
    assert firefox.evaluate("() => check()")["ok"]
    firefox.evaluate(LOAD)
    options = {"temperature": 0, "maxTokens": 40}
    written = firefox.evaluate("([p, o]) => write(lm, p, o)", [PROMPT, options])
    assert written["text"] == native
    assert written["pieces"] > 10
    code = "gw.ops.add(gw.tensor([[1.0, 2.0]]), gw.tensor([[3.0, 4.0]])).tolist()"
    answer = firefox.evaluate(f"async () => lm.python('import gpt2_wgpu as gw\\n{code}')")
    assert answer["result"] == "[[4.0, 6.0]]"
    firefox.evaluate("() => lm.dispose()")


def test_page(firefox: Firefox, address: str) -> None:
    """A visitor loads the embedded model and generates a text."""
    firefox.open(address)
    firefox.wait_for("() => !document.getElementById('load').disabled")
    firefox.evaluate(CLICK, "load")
    firefox.wait_for("() => !document.getElementById('generate').disabled")
    firefox.evaluate("() => { document.getElementById('maxTokens').value = '8'; }")
    firefox.evaluate(CLICK, "generate")
    firefox.wait_for("() => document.getElementById('figure-ended').textContent !== '–'")
    assert len(firefox.evaluate("() => document.getElementById('text').textContent")) > 20
