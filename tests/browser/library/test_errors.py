"""Errors of the library: their classes in JavaScript, and the reason of a signal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
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
        ("lm.generate([[1, 2], [3]])", "TypeError", "TypeError"),
        ("lm.generate([undefined])", "TypeError", "TypeError"),
        ("lm.generate([1, 2], { numReturnSequences: 2 })", "TypeError", "TypeError"),
        ("lm.generate('The', { constructor: 1 })", "InvalidArgumentError", "RangeError"),
        ("lm.generate('A',{ logitBias: {constructor: 1} })", "InvalidArgumentError", "RangeError"),
        ("lm.generate(Array(600).fill(5))", "ContextLengthError", "RangeError"),
        ("lm.tokenizer.decode([99999])", "TokenizerError", "RangeError"),
        ("lm.python('len(1)')", "TypeError", "TypeError"),
        ("lm.generate('The', { temperature: Symbol() })", "DataCloneError", "DOMException"),
        ("lm.inspect(Array(600).fill(5), { odds: 1 })", "ContextLengthError", "RangeError"),
        ("GPT2.load('no/such/')", "PresetError", "Error"),
    ],
)
def test_classes(tab: Tab, call: str, name: str, kind: str) -> None:
    caught = f"{call}.then(() => null, (error) => [error.name, error.constructor.name])"
    assert tab.evaluate(f"() => {caught}") == [name, kind]


TEXT_OR_IDS = "takes a text or an array of token ids"
OPTIONS = "the options of {} must be an object, not {}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((f"lm.generate({each})", f"generate {TEXT_OR_IDS}, or several of them, not {each}")
          for each in ("undefined", "null", "5", "true", "Symbol()")),
        ("lm.generate([undefined])", "generate takes several prompts as texts, not as undefined: "
         "for prompts of token ids use stream"),
        ("lm.stream({})", f"stream {TEXT_OR_IDS}, or several of them, not Object"),
        ("lm.session(null)", f"session {TEXT_OR_IDS}, not null"),
        ("lm.tokenizer.encode(undefined)", f"encode {TEXT_OR_IDS}, not undefined"),
        ("lm.generate('The', 5)", OPTIONS.format("generate", 5)),
        ("lm.generate('The', null)", OPTIONS.format("generate", "null")),
        ("lm.session('The', null)", OPTIONS.format("session", "null")),
        ("GPT2.load('fairytales', null)", OPTIONS.format("GPT2.load", "null")),
        ("configure()", "baseURL must be the address of a folder, not undefined"),
        ("configure(null)", OPTIONS.format("configure", "null")),
        (
            "lm.generate('The', { max_new_tokens: 5 })",
            re.compile("no setting 'max_new_tokens'; there are .*maxTokens"),
        ),
        (
            "lm.session('The', { max_length: 5 })",
            "no option 'max_length' of a session; there are maxLength, contextPolicy, "
            "addStartToken, allowedSpecial",
        ),
        (
            "GPT2.load('fairytales', { dType: 'q8' })",
            'GPT2.load has no option "dType"; it has dtype, hub, update, onProgress, onMemory, '
            "signal",
        ),
        (
            "GPT2.load('fairytales', { dtype: 'int8' })",
            'dtype must be one of float32, float16, q8, q4, not "int8"',
        ),
        (
            "GPT2.load('fairytales', { onProgress: 'x' })",
            'onProgress must be a function, not "x"',
        ),
        ("GPT2.load('')", "a model is named by text, or given as files, not by an empty text"),
        ("models.size('x', { hubb: 1 })", 'models.size has no option "hubb"; it has hub, signal'),
        ("lm.perplexity('The', { strid: 4 })", 'perplexity has no option "strid"; it has stride, '
         "signal"),
        ("lm.generate('The', { signal: 'x' })", 'signal must be an AbortSignal, not "x"'),
        ("lm.generate('The', { details: 1 })", "details must be true or false, not 1"),
        (
            "lm.perplexity('The', { constructor: 1 })",
            'perplexity has no option "constructor"; it has stride, signal',
        ),
        ("lm.loadSession('x')", "loadSession takes the Uint8Array of toBytes"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(tab: Tab, call: str, message: str | re.Pattern[str]) -> None:
    thrown = f"async () => {call}"
    found = tab.evaluate(f"() => ({thrown})().then(() => null, (error) => error.message)")
    if isinstance(message, str):
        assert found == message
    else:
        assert message.match(found)


def test_weight_formats_are_the_package_s() -> None:
    code = (Path(__file__).parents[3] / "web" / "arguments.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"const DTYPES = \[(.*)\];", code)
    assert [each.strip(' "') for each in listed.split(",")] == [*WEIGHT_FORMATS]
