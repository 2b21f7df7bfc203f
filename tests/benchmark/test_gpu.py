"""`make gpu`: the whole of it with a tiny plan, and what it does where something is wrong."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import gpt2_wgpu as gw
from benchmarks.gpu import adapter, correctness, parts, plan, report, switches, verdict, wheels
from benchmarks.gpu.__main__ import main
from gpt2_wgpu import nn
from gpt2_wgpu.diagnostics import Check, CheckReport
from gpt2_wgpu.nn.linear_choice import choose_kernel

pytestmark = pytest.mark.native("the benchmarks")
DOCS = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"


def run(folder, *options):
    """Runs the program; returns its status and report."""
    status = main(["--software", "--plan", "tiny", "-o", str(folder), *options])
    (path,) = folder.glob("*.json")
    return status, json.loads(path.read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAX_BYTES", "MAX_BYTES_ON_CPU"):
            patch.setattr(f"gpt2_wgpu.diagnostics.bandwidth.{name}", 1 << 20)
        patch.setattr("gpt2_wgpu.diagnostics.bandwidth.SHAPES", ((64, 64), (256, 16)))
        status, found = run(folder, "--torch-python", sys.executable)
    assert status == 0
    (text,) = folder.glob("*.md")
    return found, text.read_text()


def test_every_part_gives_figures(measured):
    found, _ = measured
    sections = found["parts"]
    assert list(sections) == list(plan.BUDGETS)
    assert not [part for part in sections.values() if "error" in part or "cut" in part]
    right = sections["correctness"]
    assert right["self_test"]["checks"] > 40 and right["products"]["products"] == 8
    assert right["tests"]["passed"] > 0 and right["compile"]["pipelines"] > 40
    assert sections["micro"]["gap_seconds"] > 0 and sections["micro"]["read_bytes_per_second"] > 0
    rows = sections["decode"]["rows"]
    of = [(row["model"], row["dtype"], row["batch"]) for row in rows]
    assert of == [
        *(("random 1x64", "f16", batch) for batch in (1, 8, 16)),
        ("random 2x64", "f16", 1),
        ("random 1x64", "q4", 1),
    ]
    head = next(one for one in rows[0]["shapes"] if one["shape"] == [50257, 64] and one["seconds"])
    assert head["bytes_per_second"] == pytest.approx(2 * 50257 * 64 / head["seconds"])
    assert len(sections["decode"]["positions"]["float16"]) == 4
    assert [row["tokens"] for row in sections["prefill"]["rows"]] == [12, 12]
    assert sections["samplers"]["top-p 0.9"]["choosing_seconds_per_step"] > 0
    compared = sections["switches"]["16 x 64 by 64"]["seconds"]
    assert {"chosen", "GEMV, 8 lanes", "GEMM, 16 rows"} <= compared.keys()
    assert compared["chosen, no loop bounds"] > 0
    assert sections["torch"]["f32"]["eager_tokens_per_second"] > 0
    cache_dtype = "float32" if found["software_adapter"] else "float16"
    assert found["plan"]["cache_dtype"] == cache_dtype


@pytest.mark.parametrize("rows", [1, 9, 20])
def test_a_gemv_of_as_many_lanes_is_the_library_s_choice(device, rows):
    with device.with_capabilities(prefers_no_barriers=False):
        chosen = choose_kernel(device, rows, 768, 96, 96, 0, has_norm=False)
    choose = switches.settings(rows)[f"GEMV, {chosen[2]['LANES']} lanes"]
    assert choose is not None
    kernel, grid, constants = choose(rows, 768)
    unrolled = {"ROUNDS": 3} if rows == 1 else {}
    assert (kernel, grid, constants | unrolled) == chosen


def test_the_verdict_of_a_software_adapter_is_about_correctness_alone(measured):
    found, text = measured
    verdicts = [row["verdict"] for row in found["verdict"]]
    assert verdicts[0] == "pass"
    if found["software_adapter"]:
        assert {*verdicts[1:]} == {"not a GPU", "not measured"}
        assert "SOFTWARE adapter" in text.splitlines()[0]


def test_markdown_has_a_table_of_each_part(measured):
    found, text = measured
    assert text == report.as_markdown(found)
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [name.capitalize() for name in plan.BUDGETS if name != "adapter"]
    for block in text.split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def keys_of(section):
    """The keys of a part, and of the objects in its lists."""
    inner = [one for value in section.values() if isinstance(value, list) for one in value]
    return {*section}.union(*(one.keys() for one in inner if isinstance(one, dict)))


def test_the_documentation_names_every_key(measured):
    found, _ = measured
    named = ("adapter", "correctness", "micro", "prefill", "torch")
    keys = {*found, *found["plan"], *found["parts"]}
    keys |= {key for name in named for key in keys_of(found["parts"][name])}
    keys |= {key for row in found["parts"]["decode"]["rows"] for key in row}
    keys |= set(found["parts"]["torch"]["f32"])
    text = DOCS.read_text()
    assert not {key for key in keys if f"`{key}`" not in text}


def test_budgets_sum_up_to_less_than_eight_minutes():
    budgets = plan.full().budgets
    assert sum(budgets.values()) - budgets["browser"] < 8 * 60
    assert list(budgets) == [*plan.BUDGETS, "browser"]


class Software:
    """In place of Device: a software adapter."""

    info = SimpleNamespace(is_software=True, name="llvmpipe")
    closed = False

    def __init__(self, adapter=None):
        pass

    def close(self):
        Software.closed = True


@pytest.mark.parametrize("nvidia", [False, True])
def test_a_software_adapter_is_rejected(monkeypatch, capsys, tmp_path, nvidia):
    monkeypatch.setattr(gw, "Device", Software)
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(adapter, "_NVIDIA", [str(tmp_path / "nvidia0")] if nvidia else [])
    assert main(["-o", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu: no GPU here, only llvmpipe, which runs on the CPU: install")
    assert "--software" in said and said.count("\n") == 1
    assert ("NVIDIA_DRIVER_CAPABILITIES=all" in said) is nvidia
    assert Software.closed and not [*tmp_path.glob("*.json")]


def test_no_adapter_at_all(monkeypatch, capsys, tmp_path):
    def none(adapter=None):
        raise gw.errors.NoAdapterError("no GPU adapter found: install a Vulkan driver")

    monkeypatch.setattr(gw, "Device", none)
    assert main(["--software", "-o", str(tmp_path)]) == 2
    assert "no GPU here: no GPU adapter found" in capsys.readouterr().err


def test_wrong_results_end_it_without_speeds(monkeypatch, tmp_path):
    wrong = CheckReport([Check("matmul", False, 9.0, 0.1, "element 3: got 9, expected 0")])
    monkeypatch.setattr(correctness, "self_check", lambda device, dtypes: wrong)
    status, found = run(tmp_path)
    assert status == 1
    assert "self-test fails: matmul" in found["wrong"]
    assert list(found["parts"]) == ["adapter", "correctness"]
    assert found["verdict"][0]["verdict"] == "fail"
    assert "**Wrong results" in report.as_markdown(found)


@pytest.fixture
def context(device):
    found = parts.Context(plan.tiny(), device, {"parts": {}})
    found.deadline = float("inf")
    return found


def test_products_that_differ_from_numpy_are_wrong(context, monkeypatch):
    linear = nn.linear
    monkeypatch.setattr(nn, "linear", lambda x, w: linear(x, w) + 0.01)
    with pytest.raises(parts.WrongResultsError, match=r"1 x 24 by 33 x 24, float32: off by 0\.01"):
        correctness._products(context, {})


PRINTED = b"""tests/test_one.py::test_it FAILED [ 50%]
tests/test_one.py::test_two[a b-3] PASSED [100%]
"""


def test_a_failing_kernel_test_is_named_and_ends_the_run_by_default(context, monkeypatch):
    def failing(command, stdout, **_):
        stdout.write(PRINTED)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(correctness.subprocess, "run", failing)
    section = {}
    with pytest.raises(parts.WrongResultsError, match=r"fail: tests/test_one.py::test_it"):
        correctness._tests(context, section)
    context.keep_going = True
    correctness._tests(context, section)
    assert section["tests"]["failed"] == ["tests/test_one.py::test_it"]
    assert section["tests"]["passed"] == 1
    found = {**figures(), "parts": {"correctness": section}}
    assert verdict.as_rows(found)[0]["verdict"] == "fail"


def test_kernel_tests_that_need_too_long_are_cut(context, monkeypatch):
    def slow(command, stdout, timeout, **_):
        stdout.write(PRINTED.replace(b"FAILED", b"PASSED"))
        raise correctness.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(correctness.subprocess, "run", slow)
    section = {}
    correctness._tests(context, section)
    assert section["tests"] == {"passed": 2, "failed": [], "cut": True}


def test_a_part_that_overruns_is_cut_and_keeps_its_results(context):
    context.plan.budgets["micro"] = 0

    def slow(context, section):
        section["first"] = 1
        context.check_time()
        section["second"] = 2

    parts.run_part(context, "micro", slow, lambda: None)
    found = context.report["parts"]["micro"]
    assert found["first"] == 1 and "second" not in found
    assert found["cut"].startswith("after 0 s")


def test_what_does_not_fit_is_an_error_of_its_part(context):
    def large(context, section):
        raise gw.errors.OutOfGPUMemoryError("too large")

    parts.run_part(context, "micro", large, lambda: None)
    assert context.report["parts"]["micro"]["error"] == "too large"


def figures(discrete=True, **steps):
    """A report of decode steps in seconds: small1 is 124M with one row, xl1 is XL."""
    names = {"small": "random 124M", "large": "random 1558M"}
    rows = []
    for key, seconds in steps.items():
        size = "large" if key.startswith("xl") else "small"
        batch = int(key.removeprefix("xl").removeprefix("small"))
        row = {"model": names[size], "dtype": "f16", "batch": batch, "seconds_per_step": seconds}
        rows.append({**row, "bandwidth_utilisation": 0.6})
    sections = {
        "decode": {
            "rows": rows,
            "positions": {"float16": [{"seconds_per_step": 1.0}, {"seconds_per_step": 1.1}]},
        },
        "prefill": {"rows": [{"model": names["small"], "tokens": 512, "seconds": 0.02}]},
        "samplers": {
            "top-p 0.9": {"choosing_seconds_per_step": 2.0},
            "top-k 40": {"choosing_seconds_per_step": 1.0},
        },
        "torch": {
            "device": "cuda",
            "prefill_tokens": 512,
            "f16": {
                "eager_tokens_per_second": 900.0,
                "transformers_tokens_per_second": 150.0,
                "graph_tokens_per_second": 1100.0,
                "long_prefill_seconds": 0.005,
            },
        },
    }
    return {
        "adapter": {"adapter_type": "DiscreteGPU" if discrete else "IntegratedGPU"},
        "software_adapter": False,
        "plan": {**names, "cache_dtype": "float16"},
        "parts": sections,
    }


def test_targets_pass_and_fail():
    found = figures(small1=0.001, small8=0.002, small16=0.002, xl1=0.01)
    by_target = {row["what"]: row for row in verdict.as_rows(found)}
    values = {what: (row["value"], row["verdict"]) for what, row in by_target.items()}
    assert list(values.values()) == [
        (None, "not measured"),
        (0.6, "pass"),
        (0.6, "fail"),
        (pytest.approx(1000 / 150), "pass"),
        (pytest.approx(1000 / 1100), "fail"),
        (pytest.approx(4.0), "fail"),
        (pytest.approx(2.0), "pass"),
        (pytest.approx(1.1), "pass"),
        (2.0, "fail"),
    ]
    weak = verdict.as_rows(figures(discrete=False, small1=0.001))
    assert (weak[1]["target"], weak[1]["verdict"]) == ("≥ 0.9", "fail")
    assert weak[2]["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("wgpu-0.32.0-py3-none-manylinux_2_28_x86_64.whl", True),
        ("wgpu-0.32.0-py3-none-manylinux_2_28_aarch64.whl", False),
        ("wgpu-0.32.0-py3-none-win_amd64.whl", False),
        ("wgpu-0.32.0-py3-none-macosx_11_0_arm64.whl", False),
        ("cffi-2.0.0-cp312-cp312-manylinux_2_17_x86_64.whl", True),
        ("cffi-2.0.0-cp311-cp311-manylinux_2_17_x86_64.whl", False),
        ("x-1-cp39-abi3-manylinux1_x86_64.whl", True),
        ("x-1-cp313-abi3-manylinux1_x86_64.whl", False),
        ("pytest-9.0.0-py3-none-any.whl", True),
    ],
)
def test_wheels_of_this_machine(monkeypatch, name, right):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "version_info", SimpleNamespace(major=3, minor=12))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert wheels.fits(name) is right


def test_wheels_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "some_module-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_module.py", "VALUE = 3")
    assert wheels.unpack(tmp_path, tmp_path / "out") == ["some_module-1-py3-none-any.whl"]
    assert (tmp_path / "out" / "some_module.py").read_text() == "VALUE = 3"
    with pytest.raises(FileNotFoundError, match="has no wheel for Python"):
        wheels.unpack(tmp_path / "out", tmp_path)
