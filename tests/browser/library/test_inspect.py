"""`lm.inspect`: odds, attention, logit lens and times of a text, against the native engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from tests.browser.library.browsing import Tab, weights_of

TEXT = "The 🐉 said: “no”"
INSPECT = """async ([input, options]) => {
  const listed = (value) => ArrayBuffer.isView(value) ? [value.constructor.name, ...value]
    : Array.isArray(value) || typeof value !== "object" || value === null ? value
    : Object.fromEntries(Object.entries(value).map(([key, each]) => [key, listed(each)]));
  return listed(await lm.inspect(input, options));
}"""


@pytest.fixture(scope="module")
def native(device: gw.Device) -> Iterator[gw.GPT2CausalLM]:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        yield lm


@pytest.fixture
def found(tab: Tab) -> dict[str, Any]:
    options = {"odds": 3, "attention": [1, 0], "lens": 2, "at": [4, 2]}
    return dict(tab.evaluate(INSPECT, [TEXT, options]))


def values(array: list[Any], kind: str, *shape: int) -> np.ndarray:
    assert array[0] == kind
    return np.array(array[1:], float).reshape(shape)


def test_tokens(found: dict[str, Any], native: gw.GPT2CausalLM) -> None:
    assert native.preprocessor
    (ids,) = native.preprocessor.encode_prompts([TEXT])
    assert found["ids"] == ["Uint32Array", *ids]
    assert "".join(found["texts"]) == TEXT and found["texts"][0] == ""
    units = TEXT.encode("utf-16-le")
    for text, begin in zip(found["texts"], found["offsets"][1:], strict=True):
        assert units[2 * begin :].startswith(text.encode("utf-16-le"))


def test_odds(found: dict[str, Any], native: gw.GPT2CausalLM) -> None:
    details = native.logprobs(TEXT, return_details=True, top_logprobs=3)
    odds = found["odds"]
    assert np.isnan(odds["logprobs"][1]) and np.isnan(odds["entropies"][1])
    for name, attribute in (("logprobs", "logprob"), ("entropies", "entropy")):
        shown = values(odds[name], "Float32Array", len(details) + 1)[1:]
        wanted = [getattr(each, attribute) for each in details]
        np.testing.assert_allclose(shown, wanted, atol=1e-3)
    assert odds["ranks"] == ["Int32Array", -1, *(each.rank for each in details)]
    assert native.preprocessor
    for token in [*odds["top"]["ids"][4:], *found["lens"]["ids"][1:]]:
        assert found["pieces"][str(token)] == native.preprocessor.tokenizer.decode([token])
    ids = values(odds["top"]["ids"], "Int32Array", len(details) + 1, 3)
    assert ids[0].tolist() == [-1] * 3
    assert ids[1:].tolist() == [[*each.top_logprobs] for each in details]


def test_attention(found: dict[str, Any], native: gw.GPT2CausalLM) -> None:
    attention = found["attention"]
    assert attention["layers"] == ["Uint32Array", 1, 0]
    length, heads = attention["length"], native.backbone.num_heads
    assert (length, attention["heads"]) == (len(found["texts"]), heads)
    patterns = values(attention["patterns"], "Float32Array", 2, heads, length, length)
    with gw.tidy():
        _, cache = native.run_with_cache(TEXT, "*.hook_pattern", return_type=None)
        for pattern, layer in zip(patterns, (1, 0), strict=True):
            np.testing.assert_allclose(pattern, cache["pattern", layer].numpy()[0], atol=1e-3)


def test_lens(found: dict[str, Any], native: gw.GPT2CausalLM) -> None:
    lens, ids = found["lens"], found["ids"][1:]
    with gw.tidy():
        _, cache = native.run_with_cache(TEXT, "*.hook_resid_*", return_type=None)
        wanted = cache.logit_lens(2, [[ids[5], ids[3]]], [4, 2])
        data, layers = wanted.numpy(), wanted.labels
    assert (lens["layers"], lens["positions"]) == (layers, ["Uint32Array", 4, 2])
    shape = (len(layers), 1, 2, 2)
    assert values(lens["ids"], "Int32Array", *shape).tolist() == data["ids"].tolist()
    shown = values(lens["probabilities"], "Float32Array", *shape)
    np.testing.assert_allclose(shown, data["probabilities"], atol=1e-3)
    shown = values(lens["divergences"], "Float32Array", *shape[:3])
    np.testing.assert_allclose(shown, data["divergences"], atol=2e-3)
    assert values(lens["ranks"], "Int32Array", *shape[:3]).tolist() == data["ranks"].tolist()


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        ("The", {"attention": 99}, "attention must be"),
        ("The", {"odds": 21}, "odds must be"),
        ("The", {"lens": 0}, "lens must be"),
        ("The", {"lens": 2, "at": [9]}, "at must be"),
        ("The", {"head": 2}, "inspect has no option 'head'"),
        ([7], {"bench": 1}, "two tokens or more"),
        ("The", {"bench": 101}, "bench must be"),
        ([], {"odds": 1}, "no token"),
        ([1_000_000], {}, "1000000"),
    ],
)
def test_bad_arguments(tab: Tab, given: Any, options: dict[str, Any], reason: str) -> None:
    call = "([given, options]) => thrown(() => lm.inspect(given, options))"
    error = tab.evaluate(call, [given, options])
    assert reason in error["message"]
    assert error["name"] in ("InvalidArgumentError", "TokenizerError")


def test_nothing_stays_on_the_gpu(tab: Tab) -> None:
    before = weights_of(tab), tab.evaluate("async () => (await lm.memory()).numTensors")
    inspected = tab.evaluate(INSPECT, [[7, 8], {"odds": 0, "attention": 0, "lens": 1}])
    assert inspected["lens"]["ranks"][-1] == -1  # nothing follows the last token
    stopped = (
        "() => thrown(() => lm.inspect('The', {odds: 1, signal: AbortSignal.abort('enough')}))"
    )
    assert tab.evaluate(stopped) is not None
    assert (weights_of(tab), tab.evaluate("async () => (await lm.memory()).numTensors")) == before


def test_time(tab: Tab) -> None:
    """SwiftShader has timestamps; kernels of browsers are others than native ones."""
    time = tab.evaluate(INSPECT, [TEXT, {"time": 3}])["time"]
    kernels = time["kernels"]
    assert (time["steps"], kernels[0], kernels[-1]) == (3, "embed", "sample")
    assert len(time["weights"]) == len(kernels)
    assert time["weights"][-2] == [4096, 256]
    seconds = values(time["seconds"], "Float32Array", len(kernels))
    assert seconds.min() >= 0 < seconds.max()
    nbytes = values(time["bytes"], "Float32Array", len(kernels))
    assert nbytes[-2] > 2 * 4096 * 256  # float16
    assert time["peakReadBandwidth"] is time["peakError"] is None
    again = tab.evaluate(INSPECT, [[5, 6], {"time": 2, "peak": True}])["time"]
    assert again["peakReadBandwidth"] > 1e7
    assert again["position"] == 2 and again["kernels"] == kernels


def test_bench(tab: Tab) -> None:
    """The figures of the command; nothing stays on the GPU."""
    bench = tab.evaluate(INSPECT, [TEXT, {"bench": 2}])["bench"]
    before = weights_of(tab), tab.evaluate("async () => (await lm.memory()).numTensors")
    sizes = [bench.pop(name) for name in ("tokens", "newTokens", "lensTokens", "topLogprobs")]
    assert sizes == [len(tab.evaluate("(text) => lm.inspect(text)", TEXT)["texts"]), 32, 12, 20]
    assert bench.keys() == {"odds", "attention", "lens", "stream", "detailedStream"}
    assert all(values(seconds, "Float32Array", 2).min() > 0 for seconds in bench.values())
    stopped = tab.evaluate(
        "(text) => thrown(() => lm.inspect(text, {bench: 99, signal: AbortSignal.timeout(300)}))",
        TEXT,
    )
    assert stopped["name"] == "TimeoutError"
    tab.evaluate(INSPECT, [[5, 6], {"bench": 1}])
    assert (weights_of(tab), tab.evaluate("async () => (await lm.memory()).numTensors")) == before
