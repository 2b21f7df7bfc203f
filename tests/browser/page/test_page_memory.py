"""Memory display: its numbers are the engine's, and it is updated."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]
KINDS = ("weights", "cache", "workspace", "parameters", "staging")


def shown(me: Visit) -> dict[str, int]:
    """What the line says, to the byte."""
    value = "data => Number(data.value)"
    rows = {k: me.page.locator(f"#memory-kinds .{k} data").evaluate(value) for k in KINDS}
    rows |= {name: me(f"memory-{name}").evaluate(value) for name in ("live", "peak")}
    for name in ("buffers", "tensors"):
        rows[name] = int((me(f"memory-{name}").text_content() or "").replace(",", ""))
    return rows


def counted(me: Visit) -> dict[str, int]:
    """What the engine says."""
    memory: dict[str, Any] = me.evaluate("() => lm.memory()")
    kinds: dict[str, int] = memory["byKind"]
    return kinds | {
        "live": memory["numBytesInGpu"],
        "peak": memory["peakBytes"],
        "buffers": memory["numBuffers"],
        "tensors": memory["numTensors"],
    }


def test_the_line_says_what_the_engine_counts(visit: Begin) -> None:
    me = visit()
    assert set(shown(me).values()) == {0}
    me.load()
    me.until(lambda: shown(me) == counted(me), "the line agrees after loading")
    me.generate()
    me.until(lambda: shown(me) == counted(me), "the line agrees after a text")
    assert shown(me)["live"] > 15_000_000


def test_the_bands_sum_to_what_is_live(visit: Begin) -> None:
    me = visit()
    me.load()
    me.generate()
    me.until(lambda: shown(me) == counted(me), "the line agrees after a text")
    found = shown(me)
    assert found["parameters"] > 0
    assert sum(found[kind] for kind in KINDS) == found["live"]


def test_the_line_rises_while_weights_come(visit: Begin) -> None:
    me = visit({"step": 100})
    expect(me("load")).to_be_enabled()
    me("load").click()
    me.until(lambda: 1e6 < shown(me)["weights"] < 14e6, "a part of the weights")
    expect(me("generate")).to_be_enabled(timeout=20_000)


def test_the_chart_moves_with_a_text(visit: Begin) -> None:
    me = visit({"pause": 15})
    me.load()
    cache = me.page.locator("#memory-bands .cache")
    before = cache.get_attribute("d")
    me("generate").click()
    me.until(lambda: shown(me)["cache"] > 0, "a cache")
    me.until(lambda: cache.get_attribute("d") != before, "the chart is drawn anew")
    words = me("memory-chart").get_attribute("aria-label") or ""
    assert re.search(r"now 20\.4 MB in use \(weights 15\.1 MB, cache 4\.2 MB, .*\), peak", words)
    me.page.keyboard.press("Escape")
    me.until(lambda: shown(me)["cache"] == 0, "the cache is given back")


def test_the_chart_moves_while_nothing_happens(visit: Begin) -> None:
    me = visit()
    me.load()
    weights = me.page.locator("#memory-bands .weights")
    me.until(lambda: bool(weights.get_attribute("d")), "a first look")
    first = weights.get_attribute("d")
    me.until(lambda: weights.get_attribute("d") != first, "time goes by")


def test_a_running_console_is_seen_in_the_line(visit: Begin) -> None:
    me = visit()
    me.load()
    me("console-toggle").click()
    me.evaluate(
        "() => { const of = lm.memory.bind(lm); lm.memory = () => (fake.looks = "
        "(fake.looks ?? 0) + 1, of()); }"
    )
    looks = me.evaluate("() => fake.looks ?? 0")
    me("code").fill("x")
    me("code").press("Enter")
    me.until(lambda: me.evaluate("() => fake.looks ?? 0") > looks, "a look after the run", 2)


_DRAWN = """() => {
  const numbers = (path) => [...path.getAttribute("d").matchAll(/[ H]?[ML][\\d.]+ ([\\d.]+)/g)];
  const levels = (selector) =>
    [...document.querySelectorAll(selector)].flatMap(numbers).map(([, y]) => Number(y));
  return [Math.min(...levels("#memory-bands path")), levels("#memory-peak-line")[0]];
}"""


def test_the_peak_is_not_below_what_is_drawn(visit: Begin) -> None:
    """With the pool; and after a device was lost, whose successor counts from zero."""
    me = visit()
    me.load()
    me.generate()
    me.until(lambda: shown(me) == counted(me), "the line agrees after a text")
    for _ in range(2):
        highest, line = me.evaluate(_DRAWN)
        assert line <= highest + 0.01
        assert shown(me)["peak"] >= 20_000_000
        pooled = me("memory-peak-pooled").evaluate("data => Number(data.value)")
        assert pooled >= shown(me)["peak"] + 1_000_000
        band = me.page.locator("#memory-bands .weights")
        before = band.get_attribute("d") or ""
        me.evaluate("() => { fake.peak = 0; }")
        expect(band).not_to_have_attribute("d", before)  # the next look
