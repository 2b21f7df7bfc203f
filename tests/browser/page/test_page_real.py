"""The built site in Chromium, with the real library, Python and WebGPU (in software)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.page.model_host import Host, hosting
from tests.browser.page.serving import serving
from tests.browser.page.test_page_memory import counted, shown
from tests.browser.page.visit import Visit, longest_task

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "fairytales"
PICTURES = ROOT / "build" / "screenshots"
SLOW = 180_000  # milliseconds: Python and its model start on a busy CPU

Begin = Callable[..., Visit]


@pytest.fixture(scope="module")
def loaded(browser_with_gpu: Browser, real_address: str) -> Iterator[Visit]:
    """A page whose embedded model is loaded: it takes a while, so tests share it."""
    me = Visit(browser_with_gpu.new_context(), real_address, None)
    me.load(SLOW)
    me.evaluate(f"() => lm.python(`{_LISTEN}`)")
    yield me
    me.check()
    me.close()


_LISTEN = """
import js
from pyodide.ffi import create_proxy
violations = []
note = lambda event: violations.append(event.violatedDirective)
js.addEventListener("securitypolicyviolation", create_proxy(note))
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting(MODEL) as running:
        yield running


def test_the_embedded_model_writes(loaded: Visit) -> None:
    expect(loaded("adapter")).to_contain_text("swiftshader")
    expect(loaded("adapter")).to_contain_text(re.compile("software · (float16|q8)$"))
    expect(loaded.page.locator('#stages [data-state="done"]')).to_have_count(5)
    loaded("prompt").fill("Once upon a time")
    loaded("temperature").fill("0")
    loaded("maxTokens").fill("12")
    text = loaded.generate(SLOW)
    assert text.startswith("Once upon a time ")
    assert len(text) > 30
    expect(loaded("figure-tokens")).to_have_text("5 prompt + 12 generated")


def test_a_seed_repeats_a_text(loaded: Visit) -> None:
    loaded("prompt").fill("The wolf")
    loaded("temperature").fill("1.2")
    loaded("maxTokens").fill("20")
    loaded("seed").fill("7")
    first = loaded.generate(SLOW)
    assert loaded.generate(SLOW) == first
    loaded("seed").fill("8")
    assert loaded.generate(SLOW) != first


def test_a_text_in_parts_is_that_of_one_piece(loaded: Visit) -> None:
    loaded("prompt").fill("The wolf")
    loaded("temperature").fill("0")
    loaded("maxTokens").fill("24")
    whole = loaded.generate(SLOW)
    loaded("maxTokens").fill("12")
    first = loaded.generate(SLOW)
    for name, text in (("continue", whole), ("undo", first), ("continue", whole), ("again", whole)):
        loaded(name).click()
        expect(loaded("text")).to_have_text(text, timeout=SLOW)
        expect(loaded("generate")).to_have_text("Generate", timeout=SLOW)
    expect(loaded("figure-tokens")).to_contain_text("+ 12 generated")


def test_an_edited_text_is_that_of_a_prompt(loaded: Visit) -> None:
    """Changed in its middle and continued; four edits hold as much GPU memory as two."""
    loaded("prompt").fill("The wolf came to the house of the king and said")
    loaded("temperature").fill("0")
    loaded("maxTokens").fill("8")
    loaded.generate(SLOW)
    held = []
    for word in ("fox", "bear", "fox", "bear"):
        edited = loaded.text.replace("king", word).replace("fox", word).replace("bear", word)[:60]
        loaded("edit").click()
        loaded("edited").fill(edited)
        loaded("edited").press("Control+Enter")
        loaded.wait_for_end(SLOW)
        settings = "{ temperature: 0, maxTokens: 8, repetitionPenalty: 1.1, wait: true }"
        after = loaded.evaluate(f"() => lm.generate({json.dumps(edited)}, {settings})")
        assert loaded.text == edited + after
        held.append(counted(loaded))
    for name in ("cache", "workspace", "buffers", "tensors"):
        assert held[3][name] == held[1][name]


def test_several_texts_and_a_stop_text(loaded: Visit) -> None:
    """Each of several texts is that of its seed; a stop text ends session and text."""
    loaded("prompt").fill("The wolf")
    loaded("temperature").fill("1")
    loaded("maxTokens").fill("10")
    loaded("seed").fill("4")
    whole = loaded.generate(SLOW)
    loaded("seed").fill("3")
    loaded("numReturnSequences").fill("2")
    loaded.generate(SLOW)
    second = loaded.page.locator("#text .version").nth(1)
    assert "The wolf" + (second.text_content() or "") == whole
    loaded("numReturnSequences").fill("1")
    loaded("seed").fill("4")
    stop = whole[-6:-2]  # within a word
    loaded("stop").fill(stop)
    text = loaded.generate(SLOW)
    expect(loaded("figure-ended")).to_have_text("stop text")
    assert text == whole[: whole.index(stop)]
    loaded("stop").fill("")
    loaded("temperature").fill("0")
    loaded("continue").click()
    loaded.wait_for_end(SLOW)
    settings = "{ temperature: 0, maxTokens: 10, repetitionPenalty: 1.1 }"
    after = loaded.evaluate(f"() => lm.generate({json.dumps(text)}, {settings})")
    assert loaded.text == text + after


def test_the_probabilities_are_the_models(loaded: Visit) -> None:
    """What the page shows of a token, to its digits, and the best of the 20 against the logits."""
    loaded("prompt").fill("The wolf")
    loaded("temperature").fill("1")
    loaded("maxTokens").fill("3")
    loaded("seed").fill("4")
    loaded("odds").check()
    text = loaded.generate(SLOW)
    loaded("story").press("End")
    rows = loaded("odds-bars").locator("tr")
    expect(rows).to_have_count(20)
    line = loaded("odds-line").text_content() or ""
    loaded("odds").uncheck()
    expect(loaded("inspect")).not_to_have_text("Stop", timeout=SLOW)  # of the first text of a page
    found = loaded.evaluate(f"async () => ({_LAST_TOKEN})({json.dumps(text)})")
    numbers = [float(each) for each in re.findall(r"[\d.]+(?= %|;| bits)", line.rpartition("”")[2])]
    assert numbers == pytest.approx([found["percent"], found["rank"], found["bits"]], rel=0.06)
    best = float((rows.first.locator("td").first.text_content() or "").removesuffix(" %"))
    assert best == pytest.approx(found["best"], rel=0.06)


_LAST_TOKEN = """async (text) => {
  const session = await lm.session(text);
  const ids = await session.tokenIds();
  await session.close();
  const logits = await lm.score(ids.slice(0, -1));
  const last = Array.from(logits.slice(-lm.info.vocabularySize));
  const sum = Math.log(last.reduce((total, x) => total + Math.exp(x), 0));
  const logprobs = last.map((x) => x - sum);
  const own = logprobs[ids.at(-1)];
  return {
    percent: 100 * Math.exp(own),
    rank: logprobs.filter((x) => x > own).length + 1,
    bits: -logprobs.reduce((total, x) => total + Math.exp(x) * x, 0) / Math.LN2,
    best: 100 * Math.exp(Math.max(...logprobs)),
  };
}"""


def test_the_page_never_holds_its_thread(loaded: Visit) -> None:
    loaded("maxTokens").fill("60")
    loaded("odds").check()
    assert 0 < longest_task(loaded.page, lambda: loaded.generate(SLOW)) <= 50
    loaded("odds").uncheck()


def test_escape_stops_and_the_memory_comes_back(loaded: Visit) -> None:
    """The keys and values of a text go when the next one begins."""
    loaded("maxTokens").fill("1")
    loaded.generate(SLOW)
    before = counted(loaded)
    loaded("maxTokens").fill("400")
    loaded("prompt").press("Enter")
    loaded.until(lambda: len(loaded.text) > 60, "some text", 60)
    loaded.until(lambda: shown(loaded)["cache"] > 0, "the line shows the cache", 20)
    loaded.page.keyboard.press("Escape")
    loaded.wait_for_end(SLOW)
    expect(loaded("figure-ended")).to_have_text("stopped")
    loaded("maxTokens").fill("1")
    loaded.generate(SLOW)
    after = counted(loaded)
    for name in ("weights", "cache", "workspace", "buffers", "tensors", "live"):
        assert after[name] == before[name]
    loaded.until(lambda: shown(loaded) == counted(loaded), "the line agrees", 20)


def test_the_examples_run(loaded: Visit) -> None:
    loaded("console-toggle").click()
    log = loaded("console-log")
    for title, seen in {
        "Generate": "The fox said",
        "Memory scopes (gw.tidy)": "after: 0 tensors",
        "Top 5 next tokens": "%",
    }.items():
        loaded("examples").get_by_role("button", name=title).click()
        expect(loaded("run")).to_have_text("Run", timeout=SLOW)
        expect(log.locator(".output").last).to_contain_text(seen)
    expect(log.locator(".error")).to_have_count(0)
    loaded("console-toggle").click()


def test_python_stays_python(loaded: Visit) -> None:
    answer = loaded.evaluate("() => lm.python('x = 20\\nx + 1')")
    assert answer["result"] == "21"
    loaded("console-toggle").click()
    loaded("code").fill("1 / 0")
    loaded("code").press("Enter")
    expect(loaded.page.locator("#console-log .error")).to_contain_text("ZeroDivisionError")
    loaded("console-toggle").click()


def test_the_console_stops_what_waits(loaded: Visit) -> None:
    loaded("console-toggle").click()
    loaded("code").fill("import asyncio; await asyncio.sleep(600)")
    loaded("code").press("Enter")
    expect(loaded("run")).to_have_text("Stop")
    loaded.page.wait_for_timeout(300)
    loaded.page.keyboard.press("Escape")
    expect(loaded.page.locator("#console-log pre").last).to_have_text("Stopped.")
    expect(loaded("run")).to_have_text("Run")
    loaded("console-toggle").click()


def test_the_worker_is_under_the_policy(loaded: Visit) -> None:
    """Where models, Python and the GPU are: nothing so far broke it, and it is there."""
    assert loaded.evaluate("() => lm.python('violations')")["result"] == "[]"
    with pytest.raises(Error, match="unsafe-eval"):
        loaded.evaluate("() => lm.python('js.eval(\\'1\\')')")
    loaded.until(
        lambda: loaded.evaluate("() => lm.python('violations')")["result"] == "['script-src']",
        "the violation is noted",
    )
    loaded.problems.clear()  # Chromium's console reports it, too


def test_a_lost_device_is_rebuilt(loaded: Visit) -> None:
    loaded("maxTokens").fill("12")
    loaded("seed").fill("3")
    before = loaded.generate(SLOW)
    loaded.evaluate("() => lm.python('lm.device.gpu.destroy()')")
    assert loaded.generate(SLOW) == before
    expect(loaded("writing-message")).to_contain_text("The model was reloaded")


def test_a_dropped_folder_loads(real: Begin) -> None:
    me = real()
    expect(me("load")).to_be_enabled(timeout=SLOW)
    me.drop(MODEL)
    expect(me("candidate-note")).to_contain_text("Read directly from your disk")
    me.load(SLOW)
    me("maxTokens").fill("5")
    me.generate(SLOW)


def test_a_download_is_cancelled_and_resumed(real: Begin, host: Host) -> None:
    me = real()
    host.seconds_per_megabyte = 0.5
    choose(me, host.address)
    me("load").click()
    weights = me.page.locator('#stages [data-stage="weights"] span')
    expect(weights).to_contain_text("MB/s", timeout=SLOW)
    me.until(lambda: me.evaluate(_BAR) > 0.3, "a third of the download", 60)
    me("load").click()
    expect(me("load")).to_contain_text("Resume", timeout=30_000)
    host.ranges.clear()
    host.seconds_per_megabyte = 0
    me.load(SLOW)
    assert any(wanted != "bytes=0-" for wanted in host.ranges)  # it went on, not anew
    me.page.locator("#others summary").click()
    expect(me.page.locator("#stored-list li")).to_have_count(1)


_BAR = """() => document.querySelector('#stages [data-stage="weights"] progress').value"""


def test_a_page_in_place_of_weights_is_refused(real: Begin, host: Host) -> None:
    host.page_instead = True
    me = real()
    choose(me, host.address)
    me("load").click()
    expect(me("model-message")).to_contain_text("model.safetensors", timeout=SLOW)
    expect(me("generate")).to_be_disabled()


def choose(me: Visit, address: str) -> None:
    """Types the address of a model and looks it up."""
    expect(me("load")).to_be_enabled(timeout=SLOW)
    me.page.locator("#others summary").click()
    me("remote-source").fill(address)
    me("remote-source").press("Enter")
    expect(me("load")).to_contain_text("Load ·", timeout=SLOW)
    me.page.locator("#others summary").click()


def test_it_works_without_a_network(real: Begin) -> None:
    me = real(snapshot=False)
    me.load(SLOW)
    expect(me("offline")).to_have_text("This page and the model work offline.", timeout=SLOW)
    me.page.close()
    me.context.set_offline(True)
    me.open(me.url)
    me.load(SLOW)
    me("maxTokens").fill("5")
    me.generate(SLOW)
    assert me.problems == []


def test_a_browser_without_webgpu_is_told(browser: Browser, site: Path, tmp_path: Path) -> None:
    without = "Object.defineProperty(navigator, 'gpu', { get: () => undefined });\n"
    worker = tmp_path / "worker.js"  # where the library looks for WebGPU
    worker.write_text(without + (site / "web" / "worker.js").read_text())
    with serving(site, "/", {"/web/worker.js": worker}) as url:
        page = opened(browser, url)
        expect(page.locator("#obstacle-reason")).to_contain_text("no WebGPU", timeout=SLOW)
        expect(page.locator("#obstacle-remedy")).to_contain_text("Chrome")
        expect(page.locator("#generate")).to_be_disabled()


def test_no_adapter_is_told(browser: Browser, real_address: str) -> None:
    page = opened(browser, real_address)  # without flags, Chromium has no adapter on a bare CPU
    expect(page.locator("#obstacle-reason")).to_contain_text("adapter", timeout=SLOW)
    expect(page.locator("#obstacle-remedy")).not_to_be_empty()


def test_an_insecure_origin_is_told(launch: Callable[..., Browser], real_address: str) -> None:
    with launch("--host-resolver-rules=MAP insecure.test 127.0.0.1") as browser:
        page = opened(browser, real_address.replace("127.0.0.1", "insecure.test"))
        expect(page.locator("#obstacle-reason")).to_contain_text("secure", timeout=SLOW)
        expect(page.locator("#obstacle-remedy")).to_contain_text("https")


def test_a_missing_file_of_pyodide_is_told(browser_with_gpu: Browser, site: Path) -> None:
    absent = {"/pyodide/pyodide.asm.wasm": site / "absent"}
    with serving(site, "/", absent) as url:
        page = opened(browser_with_gpu, url)
        expect(page.locator("#load")).to_be_enabled(timeout=SLOW)
        page.locator("#load").click()
        message = page.locator("#model-message")
        said = "Python did not start: the server answers 404 for pyodide/pyodide.asm.wasm; the site"
        expect(message).to_contain_text(said, timeout=SLOW)
        expect(page.locator("#load")).to_be_enabled()  # to try again


def opened(browser: Browser, url: str) -> Page:
    page = browser.new_page()
    page.goto(url)
    return page


def test_the_picture_of_the_readme(real: Begin) -> None:
    me = real(viewport={"width": 1280, "height": 1130}, color_scheme="light")
    me.load(SLOW)
    me("prompt").fill("Once upon a time")
    me("seed").fill("3")
    me("maxTokens").fill("100")
    me.generate(SLOW)
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / "page.png"
    me.page.screenshot(path=picture)
    assert 20_000 < picture.stat().st_size < 400_000
