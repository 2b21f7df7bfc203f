"""`GPT2.load` and what a loaded model does, with the embedded model in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.presets import _HUB_PRESETS
from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host

GREEDY = {"temperature": 0, "maxTokens": 24}
PROMPT = "Once upon a time"
LOADED = "globalThis.lm = await GPT2.load('fairytales', {onProgress: (p) => progress.push(p)})"


@pytest.fixture(scope="module")
def loading(browser: Browser, host: Host) -> Iterator[tuple[Tab, list[dict[str, Any]]]]:
    """A tab whose `lm` is the embedded model, and the progress of loading it."""
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    progress = tab.evaluate(f"async () => {{ const progress = []; {LOADED}; return progress }}")
    yield tab, progress
    tab.close()
    assert not tab.complaints


@pytest.fixture
def tab(loading: tuple[Tab, Any]) -> Tab:
    return loading[0]


def weights_of(tab: Tab) -> int:
    bytes_held: int = tab.evaluate("async () => (await lm.memory()).numBytes")
    return bytes_held


def test_check(tab: Tab) -> None:
    found = tab.evaluate("() => check()")
    assert found["ok"]
    assert found["adapter"]["software"]
    assert "swiftshader" in found["adapter"]["name"].lower()
    assert "software adapter" in found["warnings"][0]


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
    config = gw.GPT2CausalLM.from_preset("fairytales").backbone.config
    assert info["parameters"] == config.parameter_count()
    assert (info["model"], info["dtype"]) == ("fairytales", "float16")
    assert (info["contextLength"], info["vocabularySize"]) == (512, 4096)
    assert info["adapter"]["software"]
    assert info["warnings"] == []
    assert info["storedBytes"] == weights_of(tab)


def test_greedy_text_equals_the_native_one(tab: Tab, device: gw.Device) -> None:
    with gw.GPT2CausalLM.from_preset("fairytales", device=device) as lm:
        lm.compile("greedy")
        native = "".join(lm.stream(PROMPT, max_new_tokens=60))
    told = tab.evaluate("(o) => tell(lm, 'Once upon a time', o)", {**GREEDY, "maxTokens": 60})
    assert told["text"] == native
    assert told["pieces"] > 20
    stats = told["stats"]
    assert (stats["tokens"], stats["finishReason"], stats["seed"]) == (60, "length", None)
    assert stats["tokensPerSecond"] > 0 < stats["secondsToFirstToken"]
    whole = tab.evaluate("(o) => lm.generate('Once upon a time', o)", {**GREEDY, "maxTokens": 60})
    assert whole == native


def test_a_seed_repeats(tab: Tab) -> None:
    options = {"maxTokens": 30, "seed": 7}
    first, again = (tab.evaluate("(o) => tell(lm, 'The', o)", options) for _ in range(2))
    assert first["text"] == again["text"]
    assert first["stats"]["seed"] == 7
    drawn = [tab.evaluate("() => tell(lm, 'The', {maxTokens: 30})") for _ in range(2)]
    assert drawn[0]["text"] != drawn[1]["text"]
    options["seed"] = drawn[0]["stats"]["seed"]
    assert tab.evaluate("(o) => tell(lm, 'The', o)", options)["text"] == drawn[0]["text"]


def test_stop_texts_and_unicode(tab: Tab) -> None:
    plain = tab.evaluate("(o) => lm.generate('Once upon a time', o)", GREEDY)
    stop = plain[10:14]
    told = tab.evaluate("(o) => tell(lm, 'Once upon a time', o)", {**GREEDY, "stop": [stop]})
    assert told["text"] == plain[: plain.index(stop)]
    assert told["stats"]["finishReason"] == "stop_text"
    assert "\ufffd" not in tab.evaluate("(o) => lm.generate('Der Kö', o)", {"maxTokens": 40})


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
    assert found["stats"]["finishReason"] == "closed"
    assert found["stats"]["tokens"] < 5 + 2 * 16  # a submit holds 16 at most
    assert found["milliseconds"] < 2000
    assert weights_of(tab) == before
    assert tab.evaluate("(o) => tell(lm, 'Once', o)", GREEDY)["stats"]["tokens"] == 24


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
          const told = ({ value, reason }) => value ?? `${reason.name}: ${reason.message}`;
          const work = [lm.generate("The king", options), lm.generate("The wolf"), lm.python("1")];
          return (await Promise.allSettled(work)).map(told);
        }""",
        GREEDY,
    )
    assert found[0] == alone  # undisturbed
    for refused in found[1:]:
        assert refused == (
            "BusyError: this model is generating already: wait for its end, or stop it"
        )


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"temperature": -1}, "InvalidArgumentError", "temperature must be"),
        ({"topP": 0}, "InvalidArgumentError", "top_p must be"),
        ({"maxTokens": 0}, "InvalidArgumentError", "max_new_tokens must be"),
        ({"seed": 1.5}, "InvalidArgumentError", "seed must be"),
        ({"topk": 3}, "InvalidArgumentError", "no setting 'topk'"),
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
    told = tab.evaluate(run, "lm.compile('greedy')\nawait lm.generate_async('The', max_length=9)")
    assert told["result"][1:].startswith("The")
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


def test_python_that_waits_can_be_stopped(tab: Tab) -> None:
    error = tab.evaluate(
        """() => thrown(() => lm.python("import asyncio; await asyncio.sleep(60)",
                                       {signal: AbortSignal.timeout(100)}))"""
    )
    assert error["name"] == "AbortError"
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


def test_presets_are_those_of_python(tab: Tab) -> None:
    names = tab.evaluate("async () => (await import('../web/sources.js')).PRESETS")
    assert names == {name: hub_id for name, (hub_id, _) in _HUB_PRESETS.items()}


def test_a_recovery_whose_weights_are_gone(browser: Browser, host: Host) -> None:
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    error = tab.evaluate(
        """async () => {
          const lm = await GPT2.load("fairytales");
          await models.remove("fairytales");
          await lm.python("lm.device.gpu.destroy()");
          return thrown(() => lm.generate("The"));
        }"""
    )
    tab.close()
    assert error["name"] == "WeightsError"
    assert error["message"].startswith("fairytales: its weights cannot be read any more (")


# --- what is no model -----------------------------------------------------------------------------


def load_error(tab: Tab, source: str, **options: Any) -> dict[str, str]:
    error = tab.evaluate("([s, o]) => thrown(() => GPT2.load(s, o))", [source, options])
    assert error is not None
    assert "\n" not in error["message"]
    found: dict[str, str] = error
    return found


def test_a_git_lfs_pointer(tab: Tab, host: Host, fairytales: dict[str, bytes]) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15006272\n"
    source = host.add("pointer-model", fairytales | {"model.safetensors": pointer})
    error = load_error(tab, source)
    assert error["name"] == "WeightsError"
    assert "this is a Git LFS pointer, not weights" in error["message"]
    stored = tab.evaluate("() => models.list()")
    assert source not in [model["id"] for model in stored]  # it would fail again from storage


def test_weights_of_another_model(tab: Tab, host: Host, fairytales: dict[str, bytes]) -> None:
    sizes = json.loads(fairytales["config.json"])
    config = json.dumps(sizes | {"n_layer": 7}).encode()
    before = weights_of(tab)
    error = load_error(tab, host.add("odd-model", fairytales | {"config.json": config}))
    assert error["name"] == "WeightsError"
    assert "tensors do not fit config.json" in error["message"]
    assert weights_of(tab) == before


def test_a_dtype_that_does_not_exist(tab: Tab) -> None:
    before = weights_of(tab)
    error = load_error(tab, "fairytales", dtype="float8")
    assert error["name"] == "InvalidArgumentError"
    assert weights_of(tab) == before
    assert tab.evaluate("() => models.list()")[0]["complete"]  # the model is not to blame


def test_loading_can_be_stopped(tab: Tab, host: Host, fairytales: dict[str, bytes]) -> None:
    source = host.add("slow-model", fairytales)
    host.files["/slow-model/model.safetensors"].seconds_a_chunk = 0.01
    before = weights_of(tab)
    error = tab.evaluate(
        """(source) => thrown(() => {
          const controller = new AbortController();
          const onProgress = ({ bytes }) => bytes > 3e6 && controller.abort();
          return GPT2.load(source, { onProgress, signal: controller.signal });
        })""",
        source,
    )
    assert error["name"] == "AbortError"
    assert weights_of(tab) == before
    host.files["/slow-model/model.safetensors"].seconds_a_chunk = 0.0
    host.asked.clear()
    model = (
        "async (s) => { const lm = await GPT2.load(s); await lm.dispose(); return lm.info.model }"
    )
    assert tab.evaluate(model, source) == "slow-model"
    (asked,) = host.downloads("/slow-model/model.safetensors")
    assert asked.range is not None and int(asked.range[6:-1]) > 2_000_000


def test_picked_files(tab: Tab, host: Host, fairytales: dict[str, bytes]) -> None:
    source = host.add("picked-model", fairytales)
    found = tab.evaluate(
        """async ([source, names, options]) => {
          const files = [];
          for (const name of names) {
            const data = await (await fetch(source + name)).blob();
            const file = new File([data], name);
            Object.defineProperty(file, "webkitRelativePath", { value: `my model/${name}` });
            files.push(file);
          }
          const size = await models.size(files);
          const lm = await GPT2.load(files);
          const text = await lm.generate("Once upon a time", options);
          await lm.dispose();
          const others = files.filter((file) => file.name !== "config.json");
          const lacking = await thrown(() => GPT2.load(others));
          return { size, text, lacking };
        }""",
        [source, list(fairytales), GREEDY],
    )
    assert found["size"]["bytes"] == sum(map(len, fairytales.values()))
    assert found["text"] == tab.evaluate("(o) => lm.generate('Once upon a time', o)", GREEDY)
    assert found["lacking"]["name"] == "PresetError"
    assert "there is no config.json among these files" in found["lacking"]["message"]


def test_no_webgpu(browser: Browser, host: Host) -> None:
    """The same answers where a browser lacks something; the worker's own globals are replaced."""
    tab = browser.open(f"{host.page}tests/library.html")
    check = "async (lack) => { const { check } = await import('../web/check.js'); %s }"
    hidden = "Object.defineProperty(navigator, 'gpu', {value: %s, configurable: true});"
    for value, code in (
        ("undefined", "no-webgpu"),
        ("{requestAdapter: async () => null}", "no-adapter"),
    ):
        found = tab.evaluate(check % (hidden % value + "return check()"))
        assert (found["ok"], found["code"]) == (False, code)
        assert found["reason"].endswith(".")
        assert found["remedy"].endswith(".")
    tab.close()
