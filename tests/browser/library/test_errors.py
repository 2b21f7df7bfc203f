"""Errors of the library: their classes in JavaScript, and the reason of a signal."""

from __future__ import annotations

import pytest

from tests.browser.library.browsing import Tab

CALLS = {
    "load": "GPT2.load('fairytales', { signal })",
    "size": "models.size('fairytales', { signal })",
    "stream": "lm.stream('The', { signal, maxTokens: 400 }).next()",
    "session": "(async () => (await lm.session('The')).generate({ signal, maxTokens: 400 }))()",
    "generate": "lm.generate('The', { signal, maxTokens: 400 })",
    "several": "lm.generate(['The', 'A'], { signal, maxTokens: 400 })",
    "waiting": "lm.generate('The', { signal, maxTokens: 400, wait: true })",
    "logprobs": "lm.logprobs('The king', { signal })",
    "perplexity": "lm.perplexity('The king', { signal })",
    "score": "lm.score([1, 2], { signal })",
    "inspect": "lm.inspect('The king', { signal, odds: 1 })",
    "python": "lm.python('import asyncio; await asyncio.sleep(30)', { signal })",
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stopped_call_rejects_with_the_reason_of_its_signal(tab: Tab, when: str) -> None:
    """The same object, also if it is no error."""
    stopped = """async (when) => {
      const found = {};
      for (const [name, call] of Object.entries(calls)) {
        const controller = new AbortController();
        const reason = { why: name };
        if (when === "before") controller.abort(reason);
        const made = call(controller.signal);
        controller.abort(reason);
        found[name] = await made.then(() => "not stopped", (error) => error === reason);
      }
      return found;
    }"""
    calls = ", ".join(f"{name}: (signal) => {call}" for name, call in CALLS.items())
    found = tab.evaluate(
        f"(when) => {{ const calls = {{ {calls} }}; return ({stopped})(when); }}", when
    )
    assert found == dict.fromkeys(CALLS, True)


@pytest.mark.parametrize(
    ("call", "name", "kind"),
    [
        ("lm.generate('The', { temperature: -1 })", "InvalidArgumentError", "RangeError"),
        ("lm.generate(Array(600).fill(5))", "ContextLengthError", "RangeError"),
        ("lm.tokenizer.decode([99999])", "TokenizerError", "RangeError"),
        ("lm.python('len(1)')", "TypeError", "TypeError"),
        ("lm.generate(Symbol())", "DataCloneError", "DOMException"),
        ("GPT2.load('no/such/')", "PresetError", "Error"),
    ],
)
def test_classes(tab: Tab, call: str, name: str, kind: str) -> None:
    caught = f"{call}.then(() => null, (error) => [error.name, error.constructor.name])"
    assert tab.evaluate(f"() => {caught}") == [name, kind]
