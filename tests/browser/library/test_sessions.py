"""Sessions: texts in the worker that are continued, changed and forked."""

from __future__ import annotations

import gpt2_wgpu as gw
from tests.browser.library.browsing import Tab

OPTIONS = {"temperature": 0, "maxTokens": 8}
CACHE = "async () => (await lm.memory()).byKind.cache"


def test_a_session_continues_as_one_text(tab: Tab, device: gw.Device) -> None:
    before = tab.evaluate(CACHE)
    found = tab.evaluate(
        """async (options) => {
          const session = await lm.session("The king");
          const first = await session.generate(options);
          const details = await session.generate({ ...options, details: true, topLogprobs: 1 });
          const fork = await session.fork();
          await session.rewind(8);
          const rewound = await session.text();
          const again = await session.generate({ ...options, maxTokens: 4 });
          const kept = await session.edit("The king" + first + " and");
          const edited = await session.generate(options);
          await fork.append(" but");
          const result = {
            first, details, rewound, again, kept, edited, forked: await fork.text(),
            ids: await fork.tokenIds(),
            whole: await lm.generate("The king", { ...options, maxTokens: 16 }),
            afresh: await lm.generate("The king" + first + " and", options),
            cache: (await lm.memory()).byKind.cache,
          };
          for (const each of [session, fork]) await each.close();
          await session.close();
          return { ...result, closed: (await thrown(() => session.text())).name };
        }""",
        OPTIONS,
    )  # fmt: skip
    first, second = found["first"], found["details"]
    assert first + second["text"] == found["whole"]
    assert (second["finishReason"], len(second["logprobs"])) == ("length", 8)
    assert found["rewound"] == "The king" + first
    assert second["text"].startswith(found["again"])
    assert found["kept"] >= 8
    assert found["edited"] == found["afresh"]
    assert found["forked"] == f"The king{found['whole']} but"
    assert len(found["ids"]) == second["promptTokens"] + 8 + 1
    assert found["cache"] > before == tab.evaluate(CACHE)
    assert found["closed"] == "DisposedTensorError"


def test_a_session_streams_tokens(tab: Tab) -> None:
    found = tab.evaluate(
        """async (options) => {
          const session = await lm.session("The king");
          const tokens = [];
          const asked = { tokens: true, topLogprobs: 1, details: true };
          const stream = session.stream({ ...options, ...asked });
          for await (const token of stream) tokens.push(token);
          await session.close();
          return { tokens, details: stream.details, whole: await lm.generate("The king", options) };
        }""",
        OPTIONS,
    )
    tokens, details = found["tokens"], found["details"]
    assert [each["id"] for each in tokens] == details["tokenIds"]
    assert "".join(each["text"] for each in tokens) == found["whole"]
    assert [each["rank"] for each in tokens] == details["ranks"] == [0] * 8


def test_only_what_is_new_is_computed(tab: Tab) -> None:
    """Counted: the tokens that the session has on the GPU before its next text."""
    cached = tab.evaluate(
        """async (options) => {
          await lm.python(`
from gpt2_wgpu.models.session_cache import SessionCache
found, load = [], SessionCache.load
def noted(self, model, prefill, ids):
    found.append((self.stored, len(ids)))
    return load(self, model, prefill, ids)
SessionCache.load = noted`);
          const session = await lm.session("The king");
          for (const _ of [1, 2]) await session.generate(options);
          await session.close();
          return (await lm.python("SessionCache.load = load\\nfound")).result;
        }""",
        OPTIONS,
    )
    (nothing, prompt), (stored, ids) = eval(cached)
    assert (nothing, ids) == (0, prompt + 8)
    assert stored == ids - 1  # the last token has not been an input yet


def test_a_stop_keeps_the_session(tab: Tab) -> None:
    found = tab.evaluate(
        """async () => {
          const session = await lm.session("The king");
          const controller = new AbortController();
          const { signal } = controller;
          const stream = session.stream({ temperature: 0, maxTokens: 400, signal });
          let text = "", busy = null;
          const error = await thrown(async () => {
            for await (const piece of stream) {
              text += piece;
              if (text.length > 30 && !busy) {
                busy = await thrown(() => session.rewind(1));
                controller.abort();
              }
            }
          });
          const kept = await session.text();
          const on = await session.generate({ temperature: 0, maxTokens: 3 });
          const whole = await session.text();
          await session.close();
          return { text, busy, error, kept, on, whole };
        }"""
    )
    assert (found["busy"]["name"], found["error"]["name"]) == ("BusyError", "AbortError")
    assert found["kept"] == "The king" + found["text"]
    assert found["whole"] == found["kept"] + found["on"]


def test_wrong_arguments_of_sessions(tab: Tab) -> None:
    errors = tab.evaluate(
        """async () => {
          const session = await lm.session();
          const errors = [
            await thrown(() => lm.session("a", { maxlength: 3 })),
            await thrown(() => lm.session("a", { maxLength: 9999 })),
            await thrown(() => lm.session("a", { contextPolicy: "drop" })),
            await thrown(() => session.generate({ numReturnSequences: 2 })),
            await thrown(() => session.generate()),
            await thrown(() => session.rewind(99)),
          ];
          await session.close();
          return errors;
        }"""
    )
    wanted = ["no option 'maxlength'", "maxLength", "contextPolicy must be", "numReturnSequences"]
    for error, message in zip(errors, [*wanted, "", ""], strict=True):
        assert error["name"].endswith("Error") and error["name"] != "Error"
        assert message in error["message"]
        assert "\n" not in error["message"]


def test_a_saved_session_goes_on(tab: Tab) -> None:
    found = tab.evaluate(
        """async (options) => {
          const session = await lm.session("The king");
          await session.generate(options);
          const bytes = await session.toBytes();
          const loaded = await lm.loadSession(bytes);
          const texts = [await session.generate(options), await loaded.generate(options)];
          const whole = [await session.text(), await loaded.text()];
          bytes[bytes.length - 1] ^= 1;
          const error = await thrown(() => lm.loadSession(bytes));
          for (const each of [session, loaded]) await each.close();
          return { texts, whole, error, kind: bytes instanceof Uint8Array };
        }""",
        OPTIONS,
    )
    assert found["texts"][0] == found["texts"][1]
    assert found["whole"][0] == found["whole"][1]
    assert found["error"]["name"] == "SessionError"
    assert found["kind"]


def test_signals_of_sessions_stop_with_their_reason(tab: Tab) -> None:
    before = tab.evaluate(CACHE)
    found = tab.evaluate(
        """async (options) => {
          const session = await lm.session("The king");
          await session.generate(options);
          const bytes = await session.toBytes();
          const caught = [];
          for (const begin of [
            (given) => session.toBytes(given),
            (given) => lm.loadSession(bytes, given),
            (given) => session.generate({ ...options, ...given }),
            (given) => lm.generate("The king", { ...options, ...given }),
          ]) {
            for (const early of [true, false]) {
              const controller = new AbortController();
              if (early) controller.abort(new RangeError("enough"));
              const call = begin({ signal: controller.signal });
              controller.abort(new RangeError("enough"));
              const end = await call.then(() => "none", (e) => `${e.name}: ${e.message}`);
              caught.push(end);
            }
          }
          await session.close();
          await lm.generate("The king", options);
          return caught;
        }""",
        OPTIONS,
    )
    assert found == ["RangeError: enough"] * 8
    assert tab.evaluate(CACHE) == before


def test_a_forgotten_session_is_closed(tab: Tab) -> None:
    before = tab.evaluate(CACHE)
    tab.evaluate("async (o) => { await (await lm.session('The king')).generate(o); }", OPTIONS)
    assert tab.evaluate(CACHE) > before
    for _ in range(50):
        tab.collect_garbage()
        if tab.evaluate(CACHE) == before:
            return
    raise AssertionError("the session was never closed")


def test_unloading_closes_sessions(tab: Tab) -> None:
    before = tab.evaluate("async () => (await lm.memory()).numBytes")
    error = tab.evaluate(
        """async (options) => {
          const other = await GPT2.load("fairytales", { dtype: "float16" });
          const session = await other.session("The king");
          await session.generate(options);
          await other.dispose();
          await session.close();
          return thrown(() => session.text());
        }""",
        OPTIONS,
    )
    assert error["name"] == "DisposedTensorError"
    assert tab.evaluate("async () => (await lm.memory()).numBytes") == before
