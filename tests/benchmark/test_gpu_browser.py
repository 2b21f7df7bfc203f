"""The part of `make gpu` that starts browsers: what it does where one does not answer."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.gpu import browser, parts, plan, report
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.browser import program

pytestmark = pytest.mark.native("the benchmarks")


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site" / "web").mkdir(parents=True)
    (tmp_path / "site" / "web" / "gpt2.js").touch()
    return tmp_path / "site"


def measured(site, *browsers, software=True, seconds=30.0):
    """The part's section."""
    device = SimpleNamespace(info=SimpleNamespace(is_software=software))
    context = parts.Context(plan.tiny(), device, {"parts": {}}, browsers=browsers, site=site)
    section = {}
    context.plan.budgets["browser"] = seconds
    parts.run_part(context, "browser", browser.measure, lambda: None)
    section = context.report["parts"]["browser"]
    assert section.pop("seconds") < seconds + 20
    return section


def fake(tmp_path, code):
    """A program in place of a browser, whose last argument is the page's address."""
    path = tmp_path / "fake"
    path.write_text(f"#!{sys.executable}\nimport json, sys, time, urllib.request\n{code}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


POSTS = """
def post(kind, value):
    address = sys.argv[-1].replace("page.html", "report")
    urllib.request.urlopen(address, json.dumps({"kind": kind, "value": value}).encode())
"""


def test_without_a_site_it_says_how_to_make_one(tmp_path):
    assert "'make site'" in measured(tmp_path, "chrome")["error"]


def test_errors_of_one_browser_do_not_stop_the_next(site, tmp_path):
    ends = fake(tmp_path, "sys.exit(3)")
    found = measured(site, "no-such-browser", ends)
    assert found["no-such-browser"] == {"error": "no program no-such-browser"}
    assert found["fake"] == {"error": "the browser ended with 3"}


def test_an_error_of_the_page_is_reported(site, tmp_path):
    code = POSTS + "post('loaded', {'load_seconds': 1.5}); post('error', 'no WebGPU')"
    found = measured(site, fake(tmp_path, code))
    assert found["fake"] == {"load_seconds": 1.5, "error": "no WebGPU"}
    assert "fake: no WebGPU" in report.as_markdown({**empty(), "parts": {"browser": found}})


def test_figures_of_a_software_adapter_are_rejected_where_a_gpu_is_measured(site, tmp_path):
    value = {"software_adapter": True, "hardware": "SwiftShader"}
    found = measured(site, fake(tmp_path, f"{POSTS}post('measured', {value})"), software=False)
    assert found["fake"] == {"error": "the browser offers a software adapter only, SwiftShader"}


def test_a_browser_that_never_answers_is_ended_with_its_budget(site, tmp_path):
    found = measured(site, fake(tmp_path, "time.sleep(60)"), seconds=1.0)
    assert found["cut"].startswith("after 1.0 s")


def test_the_part_alone_wants_a_browser(capsys):
    assert main(["--software", "--parts", "browser"]) == 2
    assert "--browser PROGRAM" in capsys.readouterr().err


def test_firefox_gets_preferences_and_chromium_flags(tmp_path):
    firefox = program.command("/usr/bin/firefox-esr", tmp_path, "http://it", False)
    assert firefox[1:] == ["--headless", "--no-remote", "--profile", str(tmp_path), "http://it"]
    assert '"dom.webgpu.enabled", true' in (Path(tmp_path) / "user.js").read_text()
    chromium = program.command("chrome", tmp_path, "http://it", True)
    assert chromium[-1] == "http://it" and "--enable-unsafe-webgpu" in chromium


def empty():
    """A report without parts."""
    return {
        "hardware": "one",
        "driver": "one",
        "software_adapter": True,
        "adapter": {"backend": "Vulkan"},
        "versions": {},
        "date": "2026",
        "plan": {"name": "tiny"},
        "verdict": [],
    }
