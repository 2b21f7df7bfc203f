"""`gpt2-wgpu doctor`: facts, self-test, and messages if either is unavailable."""

from __future__ import annotations

import json
import platform

import pytest

from gpt2_wgpu._version import __version__
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.errors import NoAdapterError
from tests.cli.conftest import Run
from tests.cli.fake_engine import FakeEngine, check

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine().install(monkeypatch)


def test_json(engine: FakeEngine, capsys: Captured) -> None:
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    facts = json.loads(out)
    assert facts["versions"]["gpt2-wgpu"] == __version__
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["adapter"] == {
        "name": "Fake 9000",
        "vendor": "Fake",
        "type": "DiscreteGPU",
        "software": False,
        "backend": "Vulkan",
        "driver": "1.0",
    }
    assert facts["limits"] == {"max-buffer-size": 2**31}
    assert facts["features"] == ["shader-f16", "timestamp-query"]
    assert facts["check"]["passed"] is True
    assert [one["name"] for one in facts["check"]["checks"]] == ["matmul", "softmax"]
    assert engine.device_closed


def test_a_page_for_a_person(engine: FakeEngine, capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "  name      Fake 9000\n" in out
    assert "  software  no\n" in out
    assert "  max-buffer-size  2147483648 (2,048 MiB)\n" in out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_wrong_number_fails(options: list[str], engine: FakeEngine, capsys: Captured) -> None:
    engine.checks = [check("matmul", True), check("gelu", False, "at 17: got 3.0, expected 2.9")]
    assert main(["doctor", *options]) == 1
    out, err = capsys.readouterr()
    assert "at 17: got 3.0, expected 2.9" in out
    assert err == (
        "gpt2-wgpu: error: the self-test failed: wrong results in gelu. Update the driver or use "
        "another adapter\n"
    )
    assert engine.device_closed


def test_what_a_bug_report_needs(
    engine: FakeEngine, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/my/driver.json")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["info", "--json"]) == 0  # its former name
    former = json.loads(capsys.readouterr().out)
    assert main(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    facts = json.loads(out)
    assert facts == former
    assert facts["versions"]["tqdm"]
    assert facts["environment"]["VK_DRIVER_FILES"] == "/my/driver.json"
    assert "hf_secret" not in out
    assert facts["adapters"] == {"0": "Fake 9000 (DiscreteGPU, Vulkan, driver 1.0)"}
    assert facts["memory"] == {"budget_bytes": 2**32, "self_test_bytes": 2**21}
    assert "fairytales" in facts["models"]
    assert facts["machine"]["cores"] >= 1
    assert main(["doctor"]) == 0
    page = capsys.readouterr().out
    assert "  budget_bytes     4294967296 (4,096 MiB)\n" in page
    assert "  VK_DRIVER_FILES  /my/driver.json\n" in page
    assert max(map(len, page.splitlines())) < 120
    assert page.endswith("\nself-test: PASS (2 checks)\n") and "worst error" not in page


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_an_adapter_the_versions_are_told(
    options: list[str], engine: FakeEngine, capsys: Captured
) -> None:
    engine.failure = NoAdapterError("no adapter: install a driver")
    assert main(["doctor", *options]) == 1
    out, err = capsys.readouterr()
    assert __version__ in out
    assert err == "gpt2-wgpu: error: no adapter: install a driver\n"
    if options:
        assert json.loads(out)["adapter"] is None
        assert json.loads(out)["error"] == "no adapter: install a driver"


def test_this_machine(run: Run) -> None:
    done = run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["adapter"]["backend"] in ("Vulkan", "Metal", "D3D12")
    assert facts["limits"]["max-storage-buffer-binding-size"] >= 2**27
    assert facts["check"]["passed"] is True
    names = " ".join(one["name"] for one in facts["check"]["checks"]).lower()
    assert all(word in names for word in ("matmul", "softmax", "gelu", "q8 step", "draw"))
    assert all(0 <= one["worst_error"] <= one["tolerance"] for one in facts["check"]["checks"])
