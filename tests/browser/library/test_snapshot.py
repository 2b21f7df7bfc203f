"""Start of Python from a memory snapshot, with a fallback if that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import Host

# The entry of the site's cache that is the snapshot, as `cache` and `request`; `first` is a copy.
FIND = """
  const name = (await caches.keys()).find((name) => name.includes("gpt2-wgpu"));
  const cache = await caches.open(name);
  const requests = (await cache.keys()).filter(({ url }) => url.includes("/snapshot-"));
  const first = requests.find(({ url }) => url.endsWith("?first"));
  const request = requests.find((other) => other !== first);
"""
COPY = f"""async () => {{
  {FIND}
  await cache.put(`${{request.url}}?first`, await cache.match(request));
}}"""
REPLACE = f"""async (change) => {{
  {FIND}
  const whole = new Uint8Array(await (await cache.match(request)).arrayBuffer());
  const through = async (data, stream) =>
    new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(stream)).arrayBuffer());
  const unpack = (data) => through(data, new DecompressionStream("gzip"));
  const pack = (data) => through(data, new CompressionStream("gzip"));
  const changed = {{
    truncated: () => whole.slice(0, whole.length / 2),
    damaged: () => whole.with(whole.length / 2, whole[whole.length / 2] ^ 1),
    "of another Pyodide": async () => {{
      const memory = await unpack(whole);
      memory[20] ^= 1; // of the build's id
      return pack(memory);
    }},
    empty: () => pack(new Uint8Array(0)),
  }};
  await cache.put(request, new Response(await changed[change]()));
}}"""
RENAME = f"""async () => {{
  {FIND}
  const other = request.url.replace(/snapshot-[0-9a-f]+/, `snapshot-${{"0".repeat(16)}}`);
  await cache.put(other, await cache.match(request));
  await cache.delete(request);
}}"""
RESTORE = f"""async () => {{
  {FIND}
  if (request) await cache.delete(request);
  await cache.put(first.url.replace("?first", ""), await cache.match(first));
}}"""
KEPT = f"async () => {{ {FIND} return Boolean(request); }}"
START = """([python, until]) => new Promise((resolve) => {
  const worker = new Worker("start-worker.js", { type: "module" });
  worker.onmessage = ({ data }) => until in data && (worker.terminate(), resolve(data));
  worker.postMessage({ python });
})"""
WRITE = """async () => {
  let reported;
  const onProgress = ({ snapshot }) => (reported = snapshot ?? reported);
  const lm = await GPT2.load("fairytales", { dtype: "float16", onProgress });
  const text = await lm.generate("Once upon a time", { temperature: 0, maxTokens: 40, topP: null });
  return { snapshot: reported, text };
}"""
DRAW = "import random; random.random()"


@pytest.fixture(scope="module")
def native(device: gw.Device) -> str:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile("greedy")
        return "".join(lm.stream("Once upon a time", max_new_tokens=40))


@pytest.fixture(scope="module")
def own_tab(browser: Browser, host: Host) -> Iterator[Tab]:
    """A tab of the site, all of which is kept for offline use."""
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.offline)")
    assert tab.evaluate("() => offline.enable()")
    tab.evaluate(COPY)
    yield tab
    tab.close()


@pytest.fixture
def kept(own_tab: Tab) -> Iterator[Tab]:
    """That tab, with the snapshot as it was built."""
    own_tab.evaluate(RESTORE)
    yield own_tab
    assert not own_tab.complaints


def start(tab: Tab, python: str) -> tuple[str | None, Any]:
    """Start Python in a new worker: what is said of the snapshot, and the value of `python`."""
    found = tab.evaluate(START, [python, "reports"])
    done = {report["stage"]: report for report in found["reports"] if report["state"] == "done"}
    assert list(done) == ["python", "package"]
    return done["python"].get("snapshot"), found["value"]


def test_the_site_has_one(site: Path) -> None:
    manifest = json.loads((site / "manifest.json").read_text())
    (path,) = (path for path in manifest if path.startswith("pyodide/snapshot-"))
    assert 1_000_000 < manifest[path]["bytes"] < 10_000_000


def test_the_same_text_comes_from_it(kept: Tab, native: str) -> None:
    assert kept.evaluate(WRITE) == {"snapshot": "used", "text": native}
    assert kept.evaluate(KEPT)


def test_the_same_text_comes_without_it(kept: Tab, native: str) -> None:
    kept.evaluate(REPLACE, "of another Pyodide")
    kept.reload()  # a page starts Python once
    kept.wait_for("() => Boolean(globalThis.GPT2)")
    found = kept.evaluate(WRITE)
    assert found["snapshot"].startswith("Snapshot build id mismatch")
    assert found["text"] == native


def test_two_starts_draw_different_numbers(kept: Tab) -> None:
    drawn = [start(kept, DRAW) for _ in range(2)]
    assert [snapshot for snapshot, _ in drawn] == ["used"] * 2
    assert drawn[0][1] != drawn[1][1]


@pytest.mark.parametrize("change", ["truncated", "damaged", "empty"])
def test_what_cannot_be_used_is_not_tried_again(kept: Tab, change: str) -> None:
    kept.evaluate(REPLACE, change)
    why, value = start(kept, "1 + 1")
    assert why and why != "used"
    assert value == 2
    assert not kept.evaluate(KEPT)


def test_one_of_other_packages_is_not_looked_at(kept: Tab) -> None:
    kept.evaluate(RENAME)
    assert start(kept, "2 + 2") == (None, 4)
    assert kept.evaluate(KEPT)


def test_python_that_broke_down_starts_without_it(kept: Tab) -> None:
    break_down = "import js, pyodide_js; pyodide_js._api.fatal_error(js.Error.new('broken'))"
    found = kept.evaluate(START, [break_down, "failure"])
    assert "broken" in found["failure"]
    assert start(kept, "2 + 2") == (None, 4)
    assert "broken" in "".join(kept.complaints)  # Pyodide reports it on the console
    kept.complaints.clear()
