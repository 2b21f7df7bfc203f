"""Inside the model on the page: attention and logit lens of the text."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from gpt2_wgpu.bench.inspection import LENS_TOKENS, TOP
from gpt2_wgpu.integrations.web_inspection import BENCH_TOKENS
from tests.browser.page.visit import Visit

Begin = Callable[..., Visit]


def opened(visit: Begin, fake: dict[str, object] | None = None) -> Visit:
    """The page with the views of a short text."""
    me = visit(fake)
    me.load()
    me("maxTokens").fill("3")
    me.generate()
    expect(me("inspector-recorded")).to_have_text("")  # the views are of this text
    return me


def stop(me: Visit, name: str, label: str) -> None:
    """Begins what the button `name` measures, and stops it: the button has its `label` again."""
    me.evaluate("() => { fake.slowInside = 10_000; }")
    me(name).click()
    expect(me(name)).to_have_text("Stop")
    me(name).click()
    expect(me("inspector-message")).to_have_text("Stopped.")
    expect(me(name)).to_have_text(label)


def test_attention_and_lens(visit: Begin) -> None:
    me = opened(visit)
    words = me.text.split()
    expect(me("attention-tokens").locator("button")).to_have_count(len(words) + 1)
    expect(me("attention-line")).to_have_text(f"Head 0, “ {words[-1]}”: “ {words[-1]}” 100 %")
    me("heads").get_by_role("button", name="Head 1").click()
    expect(me("attention-line")).to_have_text(f"Head 1, “ {words[-1]}”: “ {words[-2]}” 100 %")
    tokens = me("attention-tokens").locator("button")
    tokens.nth(1).press("Enter")
    expect(me("attention-line")).to_have_text(f"Head 1, “{words[0]}”: “start” 100 %")
    shares = [tokens.nth(i).evaluate("b => b.style.getPropertyValue('--share')") for i in (0, 1)]
    assert shares == ["1.000", "0.000"]
    rows = me("lens").locator("tr")
    expect(rows).to_have_count(4)
    cells = rows.nth(2).get_by_role("button")
    expect(cells).to_have_count(min(8, len(words)))
    cells.nth(0).click()
    line = me("lens-line")
    expect(line).to_contain_text("Before block 1, after ")
    expect(line).to_contain_text(": “ wolf” 50 %, “ <b>” 25 %. The next token ")
    expect(line).to_contain_text("is number 4.")
    rows.nth(3).get_by_role("button").last.click()
    expect(line).to_have_text(f"At the end, after “ {words[-1]}”: “ wolf” 50 %, “ <b>” 25 %.")


def test_each_group_is_one_stop_of_the_tab_key(visit: Begin) -> None:
    me = opened(visit)
    for group, keys, labels in (
        ("heads", "ArrowRight", ["Head 0", "Head 1"]),
        ("attention-tokens", "ArrowLeft", me.text.split()[:-3:-1]),
    ):
        stops = me(group).locator("button[tabindex='0']")
        expect(stops).to_have_count(1)
        assert labels[0] in (stops.get_attribute("aria-label") or "")
        stops.press(keys)
        expect(stops).to_have_count(1)
        assert labels[1] in (stops.get_attribute("aria-label") or "")
        expect(stops).to_be_focused()
    me.page.keyboard.press("Shift+Tab")  # from a token to the heads
    me.page.keyboard.press("ArrowLeft")
    head = me("heads").get_by_role("button", name="Head 0", pressed=True)
    expect(head).to_be_focused()
    assert head.evaluate("e => getComputedStyle(e).outlineWidth") == "2px"  # also if pressed
    cells = me("lens").get_by_role("button")
    columns = cells.count() // 3
    cells.first.press("ArrowDown")
    expect(cells.nth(columns)).to_be_focused()
    cells.nth(columns).press("End")
    expect(cells.last).to_be_focused()
    cells.last.press("ArrowRight")
    expect(cells.last).to_be_focused()
    cells.last.press("ArrowUp")
    expect(cells.nth(2 * columns - 1)).to_be_focused()
    cells.nth(1).press("Home")
    expect(cells.first).to_be_focused()
    cells.first.press("ArrowUp")
    expect(cells.first).to_be_focused()


def test_another_layer_and_another_text(visit: Begin) -> None:
    me = opened(visit)
    me("inspected-layer").select_option("1")
    me.until(lambda: len(me.calls("inspect")) == 2, "the other layer")
    assert me.calls("inspect")[1][1:] == [
        me.text,
        {"attention": 1, "lens": None, "at": None, "time": None, "bench": None},
    ]
    expect(me("inspector-message")).to_have_text("")
    me("continue").click()
    me.wait_for_end()
    expect(me("inspector-message")).to_have_text("The text has changed since.")
    me("inspect").click()
    expect(me("inspector-message")).to_have_text("")
    assert me.calls("inspect")[2][1] == me.text


def test_a_text_that_is_too_long_and_no_model(visit: Begin) -> None:
    me = visit({"noInside": "the text has 600 tokens"})
    expect(me("inspect")).to_be_disabled()
    me.load()
    me("inspect").click()
    expect(me("inspector-message")).to_have_text("The text has 600 tokens.")
    expect(me("inspector-recorded")).to_contain_text("Recorded: fairytales")
    me.evaluate("() => { fake.noInside = null; fake.pause = 5000; }")
    me("inspect").click()
    expect(me("inspect")).to_have_text("Stop")
    me.evaluate("() => { fake.pause = 1; }")


def test_time_of_a_step(visit: Begin) -> None:
    me = opened(visit)
    expect(me("times")).to_be_hidden()
    me("measure").press("Enter")
    rows = me("time-rows").locator("tr")
    expect(rows).to_have_count(3)
    assert me.calls("inspect")[-1][1:] == [
        me.text,
        {"attention": None, "lens": None, "at": None, "time": 32, "bench": None},
    ]
    expect(rows.nth(1)).to_have_text("linear_gemv 256 × 10242001,0005.00")
    expect(rows.nth(0)).to_have_text("embed 4096 × 2564.02.60.64")
    expect(me("time-line")).to_have_text(
        "One step: 3 dispatches, 1,003 kB, 304 µs, 3.30 GB/s, 16 % of the 20.00 GB/s that this "
        "adapter can read. Means of 32 steps from position 4."
    )
    link = rows.nth(2).get_by_role("link", name="<b>")  # a hostile name stays text
    assert (link.get_attribute("href") or "").endswith("/shaders/%3Cb%3E.wgsl")
    rows.nth(0).get_by_role("link").press("End")
    expect(link).to_be_focused()
    expect(me("time-rows").locator("a[tabindex='0']")).to_have_count(1)
    widths = [rows.nth(i).locator(".filled").evaluate("b => b.style.width") for i in range(3)]
    assert widths == ["2%", "100%", "50%"]
    stop(me, "measure", "Measure 32 steps")
    expect(rows).to_have_count(3)  # those of before


def test_a_browser_without_timestamp_queries(visit: Begin) -> None:
    me = opened(visit, {"noTimes": True})
    me("measure").click()
    expect(me("time-line")).to_have_text(
        "One step: 3 dispatches, 1,003 kB. This browser has no timestamp queries: there are no "
        "times."
    )
    expect(me("time-rows").locator("tr").nth(1)).to_have_text("linear_gemv 256 × 1024–1,000–")


def test_times_stay_where_there_is_no_memory_for_the_peak(visit: Begin) -> None:
    me = opened(visit, {"noPeak": "out of GPU memory: <b>"})
    me("measure").click()
    expect(me("time-rows").locator("tr")).to_have_count(3)
    expect(me("time-line")).to_contain_text("304 µs, 3.30 GB/s. Means of 32 steps from position 4.")
    expect(me("time-line")).to_contain_text(
        "What this adapter can read was not measured: Out of GPU memory: <b>"
    )
    expect(me("inspector-message")).to_have_text("")


def test_time_of_looking_inside(visit: Begin) -> None:
    me = opened(visit)
    expect(me("benched")).to_be_hidden()
    me("measure-inspection").press("Enter")
    rows = me("bench-rows").locator("tr")
    expect(rows).to_have_text(
        [
            "Probability of every token after one was replaced, with "
            f"{TOP} alternatives each20.010.030.0",
            "Attention of one layer, all heads5.04.06.0",
            f"Logit lens of the first {LENS_TOKENS} tokens, all layers1.00.91.1",
            f"Stream of {BENCH_TOKENS} tokens after the text300200400",
            f"The same stream with {TOP} alternatives of each token400300500",
        ]
    )
    expect(me("bench-line")).to_have_text(
        "Measured on 70 tokens. Alternatives make the stream take 1.50 times as long."
    )
    assert me.calls("inspect")[-1][1:] == [
        me.text,
        {"attention": None, "lens": None, "at": None, "time": None, "bench": 3},
    ]
    stop(me, "measure-inspection", "Measure three times")
    expect(rows).to_have_count(5)  # those of before
    me.evaluate("() => { fake.slowInside = 0; }")
    me("inspect").click()
    expect(me("benched")).to_be_hidden()  # they were of a text that may be another


def test_what_was_measured_has_the_numbers_of_the_measurement(visit: Begin) -> None:
    """As of a short text and of a small context."""
    sizes = {"ids": [0] * 5, "tokens": 4, "newTokens": 1, "lensTokens": 3, "topLogprobs": 7}
    me = opened(visit, {"bench": sizes})
    me("measure-inspection").click()
    expect(me("bench-line")).to_contain_text("Measured on the last 4 of 5 tokens.")
    expect(me("bench-rows").locator("th")).to_have_text(
        [
            "Probability of every token after one was replaced, with 7 alternatives each",
            "Attention of one layer, all heads",
            "Logit lens of the first 3 tokens, all layers",
            "Stream of 1 token after the text",
            "The same stream with 7 alternatives of each token",
        ]
    )


def test_no_recorded_view_stays_beside_a_measured_one(visit: Begin) -> None:
    me = visit()
    expect(me("inspector-recorded")).to_contain_text("Recorded")
    me.load()
    me("measure").click()
    expect(me("time-rows").locator("tr")).to_have_count(3)
    expect(me("inspector-recorded")).to_have_text("")
