"""`GPT2.load` and what a loaded model does, with the embedded model in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

import gpt2_wgpu as gw
from tests.browser.library.browsing import Tab, weights_of

GREEDY = {"temperature": 0, "maxTokens": 24}
PROMPT = "Once upon a time"


def test_check(tab: Tab) -> None:
    found = tab.evaluate("() => check()")
    assert found["ok"]
    assert found["adapter"]["software"]
    assert "swiftshader" in found["adapter"]["name"].lower()
    assert "runs on the CPU" in found["warnings"][0]


def test_a_setting_of_null_is_the_default(tab: Tab) -> None:
    generate = "([prompt, options]) => lm.generate(prompt, options)"
    options = {"maxTokens": 8, "seed": 7}
    plain = tab.evaluate(generate, [PROMPT, options])
    nulls = dict.fromkeys(("numReturnSequences", "temperature", "topK", "stop", "timeLimit"))
    assert tab.evaluate(generate, [PROMPT, {**options, **nulls}]) == plain  # a text, no array
    assert tab.evaluate(generate, [[PROMPT], {**options, **nulls}]) == [plain]
    chosen = tab.evaluate(generate, [PROMPT, {"maxTokens": 2, "seed": None, "details": True}])
    assert chosen["seed"] >= 0
    perplexity = "([text, stride]) => lm.perplexity(text, { stride })"
    assert tab.evaluate(perplexity, [PROMPT, None]) == tab.evaluate(perplexity, [PROMPT])
    wrong = "(text) => thrown(() => lm.generate(text, { stop: [null] }))"
    message = tab.evaluate(wrong, PROMPT)["message"]
    assert "null" in message and "jsnull" not in message


def test_progress(loading: tuple[Tab, list[dict[str, Any]]]) -> None:
    _, progress = loading
    ended = {event["stage"]: event for event in progress if event["state"] == "done"}
    assert list(ended) == ["python", "package", "adapter", "weights", "shaders"]
    assert ended["python"]["bytes"] > 10_000_000
    assert ended["package"]["bytes"] > 300_000
    assert all(event["seconds"] >= 0 for event in progress)
    phases = {event["phase"]: event for event in progress if "phase" in event}
    assert list(phases) == ["download", "verify", "upload"]
    assert all(event["bytes"] == event["total"] for event in phases.values())


def test_info(tab: Tab) -> None:
    info = tab.evaluate("() => lm.info")
    config = gw.GPT2CausalLM.from_preset("fairytales", dtype="float16").backbone.config
    assert info["parameters"] == config.parameter_count()
    assert (info["model"], info["dtype"]) == ("fairytales", "float16")
    assert (info["contextLength"], info["vocabularySize"]) == (512, 4096)
    assert info["adapter"]["software"]
    assert info["warnings"] == []
    assert info["storedBytes"] == weights_of(tab)


def test_greedy_text_equals_the_native_one(tab: Tab, device: gw.Device) -> None:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile("greedy")
        native = "".join(lm.stream(PROMPT, max_new_tokens=60))
    written = tab.evaluate("(o) => write(lm, 'Once upon a time', o)", {**GREEDY, "maxTokens": 60})
    assert written["text"] == native
    assert written["pieces"] > 20
    stats = written["stats"]
    assert (stats["tokens"], stats["finishReason"], stats["seed"]) == (60, "length", None)
    assert stats["tokensPerSecond"] > 0 < stats["secondsToFirstToken"]
    whole = tab.evaluate("(o) => lm.generate('Once upon a time', o)", {**GREEDY, "maxTokens": 60})
    assert whole == native


def test_a_seed_repeats(tab: Tab) -> None:
    options = {"maxTokens": 30, "seed": 7}
    first, again = (tab.evaluate("(o) => write(lm, 'The', o)", options) for _ in range(2))
    assert first["text"] == again["text"]
    assert first["stats"]["seed"] == 7
    drawn = [tab.evaluate("() => write(lm, 'The', {maxTokens: 30})") for _ in range(2)]
    assert drawn[0]["text"] != drawn[1]["text"]
    options["seed"] = drawn[0]["stats"]["seed"]
    assert tab.evaluate("(o) => write(lm, 'The', o)", options)["text"] == drawn[0]["text"]


def test_stop_texts_and_unicode(tab: Tab) -> None:
    plain = tab.evaluate("(o) => lm.generate('Once upon a time', o)", GREEDY)
    stop = plain[10:14]
    written = tab.evaluate("(o) => write(lm, 'Once upon a time', o)", {**GREEDY, "stop": [stop]})
    assert written["text"] == plain[: plain.index(stop)]
    assert written["stats"]["finishReason"] == "stop_text"
    assert "\ufffd" not in tab.evaluate(
        "(o) => lm.generate('Der Kö', o)", {"maxTokens": 40, "seed": 1}
    )


def test_a_signal_stops_within_a_submit(tab: Tab) -> None:
    before = weights_of(tab)
    found = tab.evaluate(
        """async () => {
          const controller = new AbortController();
          const stream = lm.stream("Once upon a time", {maxTokens: 400, signal: controller.signal});
          let pieces = 0, stopped;
          const error = await thrown(async () => {
            for await (const text of stream) {
              if (++pieces === 5) { controller.abort(); stopped = performance.now(); }
            }
          });
          return { error, stats: stream.stats, milliseconds: performance.now() - stopped };
        }"""
    )
    assert found["error"]["name"] == "AbortError"
    assert found["stats"]["finishReason"] == "aborted"
    assert found["stats"]["tokens"] < 5 + 2 * 16  # a submit holds 16 at most
    assert found["milliseconds"] < 2000
    assert weights_of(tab) == before
    assert tab.evaluate("(o) => write(lm, 'Once', o)", GREEDY)["stats"]["tokens"] == 24


def test_leaving_the_loop_stops(tab: Tab) -> None:
    before = weights_of(tab)
    stats = tab.evaluate(
        """async () => {
          const stream = lm.stream("Once upon a time", {maxTokens: 400});
          for await (const text of stream) break;
          return stream.stats;
        }"""
    )
    assert stats["tokens"] < 100
    assert weights_of(tab) == before
    assert tab.evaluate("() => lm.generate('Once', {maxTokens: 2})") is not None


def test_a_signal_that_came_before(tab: Tab) -> None:
    error = tab.evaluate("() => thrown(() => lm.generate('a', {signal: AbortSignal.abort()}))")
    assert error["name"] == "AbortError"


def test_a_second_text_at_once_is_refused(tab: Tab) -> None:
    alone = tab.evaluate("(o) => lm.generate('The king', o)", GREEDY)
    found = tab.evaluate(
        """async (options) => {
          const outcome = ({ value, reason }) => value ?? `${reason.name}: ${reason.message}`;
          const work = [lm.generate("The king", options), lm.generate("The wolf"), lm.python("1")];
          return (await Promise.allSettled(work)).map(outcome);
        }""",
        GREEDY,
    )
    assert found[0] == alone  # undisturbed
    for rejected in found[1:]:
        assert rejected == (
            "BusyError: this model is generating already. Wait for its end, or stop it"
        )


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"temperature": -1}, "InvalidArgumentError", "temperature must be"),
        ({"topP": 0}, "InvalidArgumentError", "topP must be"),
        ({"maxTokens": 0}, "InvalidArgumentError", "maxTokens must be"),
        ({"seed": 1.5}, "InvalidArgumentError", "seed must be"),
        ({"topk": 3}, "InvalidArgumentError", "no setting 'topk'"),
        ({"stop": [1]}, "InvalidArgumentError", "stop must be an array"),
        ({"badWordsIds": [[]]}, "InvalidArgumentError", "badWordsIds holds an empty list"),
        ({"seed": [1, 2]}, "InvalidArgumentError", "seed has 2 entries for 1 text"),
        ({"topLogprobs": 3}, "InvalidArgumentError", "set details to true"),
        ({"details": True, "topLogprobs": 21}, "InvalidArgumentError", "topLogprobs must be"),
    ],
)
def test_settings_out_of_range(tab: Tab, options: dict[str, Any], name: str, message: str) -> None:
    error = tab.evaluate("(o) => thrown(() => lm.generate('a', o))", options)
    assert error["name"] == name
    assert message in error["message"]
    assert "\n" not in error["message"]


def test_a_prompt_too_long(tab: Tab) -> None:
    error = tab.evaluate("() => thrown(() => lm.generate('word '.repeat(600)))")
    assert error["name"] == "ContextLengthError"


def test_memory_is_pushed_while_generating(tab: Tab) -> None:
    pushed = tab.evaluate(
        """async () => {
          const pushed = [];
          lm.onmemory = (memory) => pushed.push(memory);
          await lm.generate("Once upon a time", {maxTokens: 40});
          await new Promise((resolve) => setTimeout(resolve, 100));
          lm.onmemory = null;
          return pushed;
        }"""
    )
    assert pushed[0]["byKind"]["cache"] > 0
    assert pushed[-1]["byKind"]["cache"] == 0
    assert pushed[-1] == tab.evaluate("() => lm.memory()")


def test_python(tab: Tab) -> None:
    run = "(code) => lm.python(code)"
    assert tab.evaluate(run, "x = 20\nprint('hello')\nx + 1") == {
        "output": "hello\n",
        "result": "21",
    }
    assert tab.evaluate(run, "x") == {"output": "", "result": "20"}
    found = tab.evaluate(run, "lm.compile('greedy')\nawait lm.generate_async('The', max_length=9)")
    assert found["result"][1:].startswith("The")
    code = (
        "with gw.tidy():\n    y = gw.ops.softmax(gw.tensor([[1.0, 1.0]]))\n    z = await y.data()"
    )
    assert tab.evaluate(run, code + "\nz.tolist()")["result"] == "[[0.5, 0.5]]"


def test_python_errors_have_their_traceback(tab: Tab) -> None:
    error = tab.evaluate("() => thrown(() => lm.python('def f():\\n  1/0\\nf()'))")
    assert error["name"] == "ZeroDivisionError"
    assert error["message"].startswith("Traceback (most recent call last):\n")
    assert 'File "<console>", line 2, in f' in error["message"]
    assert "worker.py" not in error["message"]
    assert tab.evaluate("() => thrown(() => lm.python('for'))")["name"] == "SyntaxError"


@pytest.mark.parametrize("code", ["exit()", "import sys; sys.exit(3)", "raise SystemExit(3)"])
def test_python_has_nothing_to_exit(tab: Tab, code: str) -> None:
    error = tab.evaluate("(code) => thrown(() => lm.python('print(1); ' + code))", code)
    assert error["message"] == "1\nexit is not available here: unload the model instead"
    assert tab.evaluate("() => lm.python('1')")["result"] == "1"
    assert [text for text in tab.complaints if "exit" in text.lower()] == []


def test_python_has_no_one_to_ask(tab: Tab) -> None:
    error = tab.evaluate("() => thrown(() => lm.python('x = input(\\'Name? \\')'))")
    assert error["message"] == "input() is not available here: write the value into the code"


def test_python_that_waits_can_be_stopped(tab: Tab) -> None:
    error = tab.evaluate(
        """() => thrown(() => lm.python("import asyncio; await asyncio.sleep(60)",
                                       {signal: AbortSignal.timeout(100)}))"""
    )
    assert error["name"] == "TimeoutError"  # the reason of the signal
    assert tab.evaluate("() => lm.python('1')")["result"] == "1"


def test_a_lost_device_recovers(tab: Tab) -> None:
    expected = tab.evaluate("(o) => lm.generate('The king', o)", GREEDY)
    found = tab.evaluate(
        """async (options) => {
          const events = [];
          lm.onlost = ({ message }) => events.push(message);
          lm.onrecovered = () => events.push("recovered");
          await lm.python("lm.device.gpu.destroy()");
          const text = await lm.generate("The king", options);
          return { events, text };
        }""",
        GREEDY,
    )
    assert found["text"] == expected
    lost, recovered = found["events"]
    assert "is gone" in lost
    assert recovered == "recovered"


def test_a_second_model_and_dispose(tab: Tab) -> None:
    before = weights_of(tab)
    found = tab.evaluate(
        """async () => {
          const progress = [];
          const other = await GPT2.load("fairytales", {
            dtype: "float32", onProgress: (p) => progress.push(p),
          });
          const both = (await other.memory()).numBytes;
          const text = await other.generate("The", {maxTokens: 3});
          await other.dispose();
          await other.dispose();
          const error = await thrown(() => other.generate("The"));
          const cached = progress.filter((p) => p.cached).map((p) => p.stage);
          return { both, text, error, cached };
        }"""
    )
    assert found["both"] > 2 * before
    assert found["text"]
    assert {"python", "package", "weights"} <= {*found["cached"]}
    assert found["error"]["name"] == "DisposedTensorError"
    assert weights_of(tab) == before
