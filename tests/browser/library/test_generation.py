"""What `generate` and `stream` return beside the text, several texts, and evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

import gpt2_wgpu as gw
from tests.browser.library.browsing import Tab, weights_of
from tests.browser.library.host import Host, Hosted

PROMPT = "Once upon a time"
GREEDY = {"temperature": 0, "maxTokens": 12}
GENERATE = "([prompt, options]) => lm.generate(prompt, options)"


@pytest.fixture(scope="module")
def native(device: gw.Device) -> Iterator[gw.GPT2CausalLM]:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        yield lm


def tokenizer_of(lm: gw.GPT2CausalLM) -> gw.GPT2Tokenizer:
    assert lm.preprocessor
    return lm.preprocessor.tokenizer


def test_details_equal_the_native_ones(tab: Tab, native: gw.GPT2CausalLM) -> None:
    wanted = native.generate(
        PROMPT, strip_prompt=True, max_new_tokens=12, sampler="greedy",
        return_details=True, top_logprobs=3,
    )  # fmt: skip
    found = tab.evaluate(GENERATE, [PROMPT, {**GREEDY, "details": True, "topLogprobs": 3}])
    assert (found["text"], found["tokenIds"]) == (wanted.text, wanted.token_ids)
    assert "".join(found["pieces"]) == wanted.text
    assert found["logprobs"] == pytest.approx(wanted.logprobs, abs=1e-3)
    assert found["ranks"] == wanted.ranks
    assert found["entropies"] == pytest.approx(wanted.entropies, abs=1e-3)
    decode = tokenizer_of(native).decode
    for row, likely in zip(found["top"], wanted.top_logprobs, strict=True):
        assert [each["id"] for each in row] == [*likely]
        assert [each["piece"] for each in row] == [decode([token]) for token in likely]
        logprobs = [each["logprob"] for each in row]
        assert logprobs == pytest.approx([*likely.values()], abs=1e-3)
    assert (found["finishReason"], found["promptTokens"], found["seed"]) == ("length", 5, None)
    assert 0 < found["timings"]["secondsToFirstToken"] <= found["timings"]["seconds"]


def test_a_stream_has_details_after_its_end(tab: Tab) -> None:
    found = tab.evaluate(
        """async () => {
          const stream = lm.stream("The king", {maxTokens: 5, seed: 3, details: true});
          const before = stream.details;
          let text = "";
          for await (const piece of stream) text += piece;
          const plain = lm.stream("The king", {maxTokens: 5, seed: 3});
          for await (const piece of plain);
          return { before, text, details: stream.details, without: plain.details };
        }"""
    )
    assert found["before"] is found["without"] is None
    assert found["details"]["text"] == found["text"]
    assert found["details"]["seed"] == 3
    assert len(found["details"]["logprobs"]) == 5
    assert found["details"]["top"] == [[]] * 5


def test_several_texts_are_each_that_of_its_prompt_and_seed(tab: Tab) -> None:
    prompts, options = ["The king", "Once upon a time there was"], {"maxTokens": 10}
    details = {**options, "seed": 7, "details": True, "numReturnSequences": 2}
    found = tab.evaluate(GENERATE, [prompts, details])
    assert [each["seed"] for each in found] == [7, 8, 9, 10]
    assert tab.evaluate(GENERATE, [prompts, {**options, "seed": [7, 9]}]) == [
        found[0]["text"],
        found[2]["text"],
    ]
    for prompt, each in zip([prompts[0]] * 2 + [prompts[1]] * 2, found, strict=True):
        assert tab.evaluate(GENERATE, [prompt, {**options, "seed": each["seed"]}]) == each["text"]
    assert len({each["text"] for each in found}) == 4
    assert tab.evaluate(GENERATE, [[], {}]) == []
    one = tab.evaluate(GENERATE, [prompts[0], {**options, "seed": 7, "numReturnSequences": 1}])
    assert one == [found[0]["text"]]


def test_beams_time_limit_and_wait(tab: Tab, native: gw.GPT2CausalLM) -> None:
    beams = gw.samplers.BeamSampler(3, length_penalty=0.5)
    wanted = native.generate(
        PROMPT, strip_prompt=True, max_new_tokens=8, sampler=beams, num_return_sequences=2
    )
    options = {"numBeams": 3, "lengthPenalty": 0.5, "maxTokens": 8}
    assert tab.evaluate(GENERATE, [PROMPT, {**options, "numReturnSequences": 2}]) == wanted
    streamed = tab.evaluate(
        """async ([prompt, options]) => {
          const texts = [];
          for await (const { row, text } of lm.stream(prompt, options)) texts[row] = text;
          return texts;
        }""",
        [PROMPT, {**options, "numReturnSequences": 2}],
    )
    assert streamed == wanted
    for method in ("generate", "stream"):
        error = tab.evaluate(
            """async ([method, options]) => {
              const { name, message } = await thrown(() => {
                const made = lm[method]("The", { ...options, numReturnSequences: 2 });
                return method === "stream" ? made.next() : made;
              });
              return `${name}: ${message}`;
            }""",
            [method, GREEDY],
        )
        said = "InvalidArgumentError: numReturnSequences 2 with GreedySampler gives 2 equal texts"
        assert error.startswith(said)
    found = tab.evaluate(
        """async ([prompt, options]) => {
          const both = await Promise.all([
            lm.generate(prompt, options), lm.generate(prompt, { ...options, wait: true }),
          ]);
          const busy = lm.generate(prompt, options);
          const error = await lm.generate(prompt, options).catch(({ name }) => name);
          const stream = lm.stream(prompt, { maxTokens: 400, timeLimit: 0.3 });
          await busy;
          for await (const piece of stream);
          return { both, error, reason: stream.stats.finishReason };
        }""",
        [PROMPT, options],
    )
    assert found["both"] == [wanted[0]] * 2
    assert found["error"] == "BusyError"
    assert found["reason"] == "time_limit"


SMALL_LETTERS = b"""
export const allows = (text, piece) => /^[a-z ]+$/.test(piece);
export const finished = () => false;
"""


def test_a_time_limit_ends_a_wait(tab: Tab, host: Host) -> None:
    """The running text, with its constraint, goes on to its end."""
    host.files["/a/page/small-letters.js"] = Hosted(SMALL_LETTERS, kind="text/javascript")
    found = tab.evaluate(
        """async (constraint) => {
          const plain = { temperature: 0, maxTokens: 60, constraint };
          const whole = await lm.generate("The king", plain);
          const session = await lm.session("The king");
          const stream = lm.stream("The king", plain);
          let text = (await stream.next()).value;
          const late = { wait: true, timeLimit: 0.05, maxTokens: 9 };
          const waiting = lm.stream("Once", { ...late, details: true });
          const beams = { numBeams: 2, returnAllBeams: true, details: true };
          const none = await waiting.next();
          const others = [
            await lm.generate(["Once", "The"], late),
            await lm.generate("Once", { ...late, ...beams }),
            await session.generate(late),
          ];
          const running = stream.stats.finishReason === null;
          const { finishReason, tokens, promptTokens } = waiting.stats;
          for await (const piece of stream) text += piece;
          await session.close();
          const again = await lm.generate("Once", { wait: true, timeLimit: 60, maxTokens: 2 });
          return { whole, text, none: none.done, others, running, again, details: waiting.details,
                   stats: [finishReason, tokens, promptTokens] };
        }""",
        "../small-letters.js",
    )
    assert re.fullmatch("[a-z ]{60,}", found["text"])
    assert found["running"] and found["none"]
    assert found["text"] == found["whole"]
    assert found["stats"] == ["time_limit", 0, 2]
    assert found["details"]["finishReason"] == "time_limit"
    texts, beams, of_session = found["others"]
    assert (texts, of_session) == (["", ""], "")
    assert {(each["text"], each["finishReason"]) for each in beams} == {("", "time_limit")}
    assert found["again"]


def test_all_beams_with_their_scores(tab: Tab, native: gw.GPT2CausalLM) -> None:
    prompts = ["The king", PROMPT]
    beams = gw.samplers.BeamSampler(3, return_all_beams=True, length_penalty=0.5)
    wanted = native.generate(
        prompts, strip_prompt=True, max_new_tokens=8, sampler=beams, return_details=True
    )
    options = {"numBeams": 3, "lengthPenalty": 0.5, "maxTokens": 8, "returnAllBeams": True}
    found = tab.evaluate(GENERATE, [prompts, options])
    assert [each["text"] for each in found] == [each.text for each in wanted]
    scores = [each["score"] for each in found]
    assert scores == pytest.approx([each.score for each in wanted], abs=1e-3)
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert len({each["text"] for each in found}) == 6
    detailed = tab.evaluate(GENERATE, [PROMPT, {**options, "details": True}])
    assert [{key: each[key] for key in ("text", "score")} for each in detailed] == found[3:]
    assert [len(each["logprobs"]) for each in detailed] == [8, 8, 8]
    for given, message in (
        ({"returnAllBeams": True}, "returnAllBeams is part of beam search: set numBeams, too"),
        ({**options, "numReturnSequences": 2}, "returnAllBeams returns numBeams 3 texts"),
    ):
        assert message in tab.evaluate(
            """async (given) => (await thrown(() => lm.generate("The", given))).message""", given
        )
    assert "call generate" in tab.evaluate(
        """async (options) => (await thrown(() => lm.stream("The", options).next())).message""",
        options,
    )


def test_several_texts_stream_together(tab: Tab) -> None:
    found = tab.evaluate(
        """async (options) => {
          const stream = lm.stream(["The king", "Once upon a time there was"], options);
          const texts = ["", ""], order = [];
          for await (const { row, text } of stream) {
            texts[row] += text;
            order.push(row);
          }
          const ids = await lm.tokenizer.encode("<|endoftext|>The king", { allowedSpecial: "all" });
          const samples = lm.stream(ids, { ...options, details: false, numReturnSequences: 2 });
          for await (const piece of samples);
          const whole = await lm.generate(["The king", "Once upon a time there was"], options);
          return { texts, order, stats: stream.stats, details: stream.details, whole,
                   samples: samples.stats };
        }""",
        {"maxTokens": 8, "seed": 7, "details": True},
    )
    assert found["texts"] == [each["text"] for each in found["whole"]]
    assert [each["tokenIds"] for each in found["details"]] == [
        each["tokenIds"] for each in found["whole"]
    ]
    assert found["order"][:4] == [0, 1, 0, 1]
    for index, stats in enumerate(found["stats"]):
        assert (stats["tokens"], stats["seed"]) == (8, 7 + index)
        assert stats["finishReason"] == "length"
    assert [each["seed"] for each in found["samples"]] == [7, 8]


def test_a_signal_stops_several_texts_and_frees_their_memory(tab: Tab) -> None:
    found = tab.evaluate(
        """async () => {
          const before = (await lm.memory()).numTensors;
          const controller = new AbortController();
          lm.onmemory = ({ byKind }) => byKind.cache && controller.abort();
          const options = {maxTokens: 400, signal: controller.signal};
          const error = await thrown(() => lm.generate(["The king", "The wolf"], options));
          lm.onmemory = null;
          return { error: error.name, more: (await lm.memory()).numTensors - before };
        }"""
    )
    assert found == {"error": "AbortError", "more": 0}
    assert tab.evaluate(GENERATE, [PROMPT, GREEDY])


def test_rules_for_tokens(tab: Tab, native: gw.GPT2CausalLM) -> None:
    first, second = native.generate(
        PROMPT, max_new_tokens=2, sampler="greedy", return_details=True
    ).token_ids
    ids = "(options) => lm.generate('Once upon a time', {...options, details: true})"

    def new(**options: Any) -> list[int]:
        return list(tab.evaluate(ids, {**GREEDY, "maxTokens": 2, **options})["tokenIds"])

    assert new() == [first, second]
    assert new(suppressTokens=[first])[0] != first
    assert new(beginSuppressTokens=[first])[0] != first
    assert new(logitBias={str(first): -100})[0] != first
    assert new(badWordsIds=[[first, second]]) == [first, new(suppressTokens=[second])[1]]
    assert new(forcedEosTokenId=17) == [first, 17]


def test_ids_as_prompt(tab: Tab) -> None:
    found = tab.evaluate(
        """async (options) => {
          const ids = await lm.tokenizer.encode("Once upon a time");
          const start = await lm.tokenizer.encode("<|endoftext|>", { allowedSpecial: "all" });
          const whole = [...start, ...ids];
          const error = await thrown(() => lm.generate(whole, { numReturnSequences: 2 }));
          return { text: await lm.generate(whole, options), error };
        }""",
        GREEDY,
    )
    assert found["text"] == tab.evaluate(GENERATE, [PROMPT, GREEDY])
    assert found["error"]["name"] == "TypeError"


SHORT_WORDS = b"""
export const allows = (text, piece) => /^[a-z ]{0,8}$/.test(text + piece);
export const finished = (text) => text.length > 5;
"""


def test_a_module_constrains_the_text(tab: Tab, host: Host) -> None:
    host.files["/a/page/short-words.js"] = Hosted(SHORT_WORDS, kind="text/javascript")
    alone, (together,), error, free = tab.evaluate(
        """async ([constraint, options]) =>
          [await lm.generate("The king", { ...options, constraint }),
           await lm.generate(["The king"], { ...options, constraint }),
           await thrown(() => lm.generate("The", { constraint: "nowhere.js" })),
           await lm.generate("The king", options)]""",
        ["../short-words.js", {**GREEDY, "maxTokens": 9}],
    )
    assert alone == together != free
    assert 5 < len(alone) <= 8
    assert error["name"] == "InvalidArgumentError"
    assert "nowhere.js is not a module" in error["message"]


def test_the_tokenizer(tab: Tab, native: gw.GPT2CausalLM) -> None:
    text = "Der König 🤴<|endoftext|>"
    found = tab.evaluate(
        """async (text) => {
          const { encode, decode, pieces } = lm.tokenizer;
          const all = { allowedSpecial: "all" };
          const ids = await encode(text);
          return { ids, all: await encode(text, all), text: await decode(ids),
                   of: await pieces(ids), pieces: await pieces(text, all),
                   error: await thrown(() => decode([99999])) };
        }""",
        text,
    )
    encode = tokenizer_of(native).encode
    assert found["ids"] == encode(text)
    assert found["all"] == encode(text, "all")
    assert found["text"] == "".join(found["of"]) == "".join(found["pieces"]) == text
    assert found["pieces"][-1] == "<|endoftext|>"
    assert len(found["pieces"]) == len(found["all"])
    assert found["error"]["name"] == "TokenizerError"


def test_evaluation_equals_the_native_one(tab: Tab, native: gw.GPT2CausalLM) -> None:
    texts = ["Once upon a time there was a king.", "The wolf"]
    found = tab.evaluate(
        """async ([texts, ids]) => ({
          one: await lm.logprobs(texts[0]), all: await lm.logprobs(texts),
          ids: await lm.logprobs(ids),
          perplexity: await lm.perplexity(texts, { stride: 100 }),
          losses: [...await lm.score(ids.slice(0, -1), { targetIds: ids.slice(1) })],
          logits: (await lm.score(ids)).length,
          error: await thrown(() => lm.score(ids, { targetIds: [1] })),
          stopped: await thrown(() => lm.perplexity(texts, { signal: AbortSignal.abort() })),
        })""",
        [texts, ids := [5, 17, 90, 4]],
    )
    wanted = native.logprobs(texts)
    assert found["one"] == pytest.approx(found["all"][0], abs=1e-5)
    for row, other in zip(found["all"], wanted, strict=True):
        assert row == pytest.approx(other, abs=1e-3)
    assert found["perplexity"] == pytest.approx(native.perplexity(texts, 100), rel=1e-3)
    assert found["ids"] == pytest.approx(native.logprobs(ids), abs=1e-3)
    assert found["losses"] == pytest.approx([-each for each in found["ids"]], abs=1e-3)
    assert found["logits"] == 4 * native.backbone.config.vocab_size
    assert found["error"]["name"] == "ShapeError"
    assert "targetIds" in found["error"]["message"]
    assert found["stopped"]["name"] == "AbortError"


def test_nothing_stays_on_the_gpu(tab: Tab) -> None:
    before = weights_of(tab), tab.evaluate("async () => (await lm.memory()).numTensors")
    tab.evaluate("() => lm.generate(['a', 'b'], {maxTokens: 3, details: true, topLogprobs: 2})")
    assert tab.evaluate("async () => (await lm.score([1, 2, 3])).length") == 3 * 4096
    assert before == (
        weights_of(tab),
        tab.evaluate("async () => (await lm.memory()).numTensors"),
    )


def test_a_stream_gives_tokens(tab: Tab) -> None:
    """While it runs; numbers, texts and places of the details."""
    before = weights_of(tab)
    found = tab.evaluate(
        """async () => {
          const options = { tokens: true, topLogprobs: 2, seed: 4, maxTokens: 12, details: true };
          const stream = lm.stream("The king", options);
          const tokens = [];
          const ended = [];
          for await (const token of stream) {
            tokens.push(token);
            ended.push(stream.stats.finishReason !== null);
          }
          const whole = await lm.generate("The king", { ...options, details: false });
          return { tokens, ended, whole, details: stream.details };
        }"""
    )
    tokens, details = found["tokens"], found["details"]
    assert not found["ended"][0]
    assert [each["id"] for each in tokens] == details["tokenIds"]
    assert "".join(each["text"] for each in tokens) == details["text"] == found["whole"]
    assert [each["offset"] for each in tokens][:2] == [0, len(tokens[0]["text"])]
    assert [each["rank"] for each in tokens] == details["ranks"]
    assert [each["logprob"] for each in tokens] == pytest.approx(details["logprobs"], abs=1e-3)
    assert [len(each["top"]) for each in tokens] == [2] * 12
    assert weights_of(tab) == before
