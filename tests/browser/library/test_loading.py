"""Loading of invalid models, picked files, and cancelled or deleted models."""

from __future__ import annotations

import json
from typing import Any

from tests.browser.library.browsing import Browser, Tab, weights_of
from tests.browser.library.host import Host

GREEDY = {"temperature": 0, "maxTokens": 24}


def test_a_recovery_whose_weights_are_gone(browser: Browser, host: Host) -> None:
    tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
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


def test_an_address_relative_to_the_page(tab: Tab, host: Host) -> None:
    size = "(source) => models.size(source)"
    whole = tab.evaluate(size, f"{host.page}models/fairytales/")
    path = host.page.removeprefix(host.address)
    for relative in ("../models/fairytales", "./../models/fairytales/", f"{path}models/fairytales"):
        assert tab.evaluate(size, relative) == whole
    for relative in ("./absent", "absent/", "no/such/model"):
        error = load_error(tab, relative)
        assert f"{host.page}tests/{relative.strip('./')}/ has no config.json" in error["message"]


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
    config = json.dumps(sizes | {"n_layer": sizes["n_layer"] + 1}).encode()
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
