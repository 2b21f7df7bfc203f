"""`gpt2-wgpu bench`: output, progress, and errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.cli.main import main
from tests.cli.conftest import Run
from tests.cli.test_arguments import usage_error

Captured = pytest.CaptureFixture[str]
QUICK = ["bench", "-p", "6", "-n", "8", "-r", "1"]


@pytest.fixture(autouse=True)
def little_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit measured over a few bytes: not what an adapter can, but as good for a test."""
    for name in ("MAX_BYTES", "MAX_BYTES_ON_CPU"):
        monkeypatch.setattr(f"gpt2_wgpu.diagnostics.bandwidth.{name}", 1 << 20)
    monkeypatch.setattr("gpt2_wgpu.diagnostics.bandwidth.SHAPES", ((64, 64), (256, 16)))


@pytest.mark.usefixtures("device")
def test_tables_for_a_person(capsys: Captured) -> None:
    options = ["-b", "1,2", "--dtype", "f16", "--cache-dtype", "f16"]
    assert main([*QUICK, *options]) == 0
    out, err = capsys.readouterr()
    assert "| pp6 |" in out
    assert out.count("| tg8 |") == 2
    assert "of peak bandwidth" in out
    assert "| stream_read_strided |" in out
    assert out.endswith(" |\n")
    assert all(line.startswith("gpt2-wgpu: ") for line in err.splitlines())
    assert "gpt2-wgpu: f16, batch 2: run 1 of 1\n" in err


@pytest.mark.parametrize("model", [["--random", "1x64"], []])
@pytest.mark.parametrize(("kind", "expected"), [("CPU", "q8"), ("DiscreteGPU", "f16")])
def test_the_default_dtype_is_the_library_s(
    model: list[str],
    kind: str,
    expected: str,
    device: gw.Device,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def measured(*_: object) -> dict[str, float]:
        return {"float16": 3.0, "q8": 1.0}

    monkeypatch.setattr(device, "info", replace(device.info, adapter_type=kind))
    monkeypatch.setattr("gpt2_wgpu.models.default_dtype.seconds_of_products", measured)
    monkeypatch.setattr("gpt2_wgpu.models.default_dtype._measured", {})
    monkeypatch.setattr("gpt2_wgpu.models.remembered.directory", lambda: None)
    assert main([*QUICK, *model, "-o", "json"]) == 0
    out, err = capsys.readouterr()
    assert [row["dtype"] for row in json.loads(out)["rows"]] == [expected]
    assert f"gpt2-wgpu: weights are {expected}, its default on this adapter\n" in err


@pytest.mark.usefixtures("device")
def test_json_of_random_weights(capsys: Captured) -> None:
    assert main([*QUICK, "--random", "1x64", "--dtype", "f32,f16,f32", "-o", "json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["work"]["model"] == "random 1x64"
    assert [row["dtype"] for row in report["rows"]] == ["f32", "f16"]
    assert all(0 < row["bandwidth_utilisation"] <= 1.2 for row in report["rows"])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("output", ["md", "json"])
def test_wrong_outputs_have_no_speed(
    output: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = samplers.Random(temperature=3.0, seed=5).next_options()
    monkeypatch.setattr(samplers.Greedy, "next_options", lambda self: options)
    assert main([*QUICK, "-o", output, "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gpt2-wgpu: error: new token ")
    assert "by the uncached forward pass" in err
    assert err.endswith("wrong outputs have no speed\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("-p", "0", "'0' must be an integer >= 1"),
        ("-n", "1", "'1' must be an integer >= 2"),
        ("-r", "none", "'none' must be an integer >= 1"),
        ("-b", "1,0", "'0' must be an integer >= 1 and <= 65535"),
        ("-b", "", "'' must be an integer >= 1"),
        ("--dtype", "f16,f8", "'f8' is not a weight format (choose from f"),
        ("-o", "csv", "invalid choice: 'csv'"),
        (
            "--random",
            "125M",
            "'125M' is not a model size: use 124M, 355M, 774M, 1558M, or LAYERSxWIDTH",
        ),
        ("--random", "1x63", "a width that is a multiple of 64"),
    ],
)
def test_a_value_out_of_bounds_is_named(
    option: str, value: str, bound: str, capsys: Captured
) -> None:
    err = usage_error(capsys, "bench", option, value)
    assert err.startswith("gpt2-wgpu bench: error: ")
    assert option in err
    assert bound in err


def test_one_model_at_a_time(capsys: Captured) -> None:
    err = usage_error(capsys, "bench", "-m", "fairytales", "--random", "124M")
    assert "not allowed with argument" in err


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["-m", "no-such-model"], "unknown model 'no-such-model'"),
        (["-p", "600"], "600 prompt tokens and 8 new ones exceed the model's context of 512"),
    ],
)
def test_what_only_shows_when_it_runs(options: list[str], error: str, capsys: Captured) -> None:
    assert main([*QUICK[:-2], *options, "-n", "8", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gpt2-wgpu: error: {error}")


def test_usage_errors_come_before_anything_heavy(run: Run) -> None:
    done = run("bench", "-n", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "see 'gpt2-wgpu bench --help'" in done.stderr
