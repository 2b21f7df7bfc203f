"""Charts: one bar per figure, none for wrong outputs, valid SVG."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.draw import draw

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "draw.py"
SVG = "{http://www.w3.org/2000/svg}"


def row(engine, decode, equal_outputs=True, **more):
    return {
        "engine": engine,
        "backend": "WebGPU",
        "dtype": "f32",
        "prefill_seconds": [0.5, 0.25, 1.0],
        "decode_tokens_per_second": decode,
        "equal_outputs": equal_outputs,
        "note": "",
    } | more


def result(*rows, **more):
    return {
        "date": "2026-11-22T15:00:00+00:00",
        "hardware": "A <GPU> & more",
        "driver": "1.0",
        "software_adapter": False,
        "versions": {"gpt2-wgpu": "0.1.0"},
        "work": {"model": "124M", "prompt_tokens": 100, "new_tokens": 64, "batch": 1},
        "rows": list(rows),
    } | more


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def widths(svg, kind):
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(rect.get("width")) for rect in rects if rect.get("class") == kind]


def test_bars_are_medians_and_in_order():
    svg = draw(result(row("peer", [1.0, 4.0, 2.0]), row("gpt2-wgpu", [8.0, 7.0, 9.0], batch=2)))
    (ours, _), (theirs, _) = widths(svg, "ours"), widths(svg, "theirs")
    assert ours == pytest.approx(4 * theirs, rel=0.01)
    found = texts(svg)
    assert "A <GPU> & more · 1.0 · 2026-11-22" in found
    assert found.index("gpt2-wgpu, WebGPU, f32 x 2") < found.index("peer, WebGPU, f32")
    assert {"8", "2", "400", "200"} <= {*found}  # prefill: 100 tokens in half a second, twice, once


def test_wrong_outputs_have_no_bar():
    svg = draw(result(row("gpt2-wgpu", [8.0]), row("peer", [900.0], "token 3 differs")))
    assert len(widths(svg, "theirs")) == 0
    assert texts(svg).count("no figure: token 3 differs") == 2
    assert "900" not in svg


def test_what_was_not_measured_is_left_out():
    svg = draw(result(row("gpt2-wgpu", []), load={"foreign_cpu": 1.23}, software_adapter=True))
    assert len(widths(svg, "ours")) == 1
    assert any("SOFTWARE ADAPTER" in words and "1.2 cores" in words for words in texts(svg))


def test_text_is_escaped_and_colours_follow_the_reader():
    svg = draw(result(row("<b>", [1.0], note='"&"')))
    assert "<b>, WebGPU, f32" in texts(svg)
    assert "prefers-color-scheme: dark" in svg


def test_the_script(tmp_path):
    good, old = tmp_path / "good.json", tmp_path / "old.json"
    good.write_text(json.dumps(result(row("gpt2-wgpu", [1.0]))))
    old.write_text("{}")
    done = subprocess.run(
        [sys.executable, SCRIPT, good, old, "-o", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'good.svg'}\n"
    assert done.stderr == f"{old}: no rows, so nothing to draw\n"
    assert (tmp_path / "good.svg").read_text() == draw(json.loads(good.read_text()))
