"""`--adapter` of each command that opens a GPU, and the error for a missing adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.errors import NoAdapterError
from tests.cli.conftest import Run

COMMANDS = {
    "generate": ["generate", "-q", "Once"],
    "convert": ["convert", "fairytales", "there", "--dtype", "q8"],
    "bench": ["bench"],
    "doctor": ["doctor"],
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What `Device` was asked for; it finds no adapter."""
    asked: list[Any] = []

    class NoDevice:
        def __init__(self, adapter: int | str | None = None) -> None:
            asked.append(adapter)
            raise NoAdapterError("0 is the only one")

    monkeypatch.setattr(gw, "Device", NoDevice)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("text", "adapter"), [("1", 1), ("radeon", "radeon"), ("9" * 5000, "9" * 5000), ("-1", "-1")]
)
def test_the_named_adapter_is_opened(
    command: list[str],
    text: str,
    adapter: int | str,
    opened: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, f"--adapter={text}"]) == 1
    assert opened == [adapter]
    assert "0 is the only one" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_empty_name_is_wrong_usage(
    command: list[str], opened: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--adapter", " "]) == 2
    assert "argument --adapter: ' ' is empty" in capsys.readouterr().err
    assert opened == []


def test_a_text_on_the_named_adapter(run: Run) -> None:
    name = gw.adapters()[0].name
    arguments = ["generate", "-q", "--greedy", "-n", "4", "Once"]
    done = run(*arguments, "--adapter", name[1:].upper())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Once")
    wrong = run(*arguments, "--adapter", "nosuch")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert f"no adapter 'nosuch'; available adapters: 0: {name}" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["generate", "doctor"])
def test_without_an_adapter_a_command_fails_with_one_line(command: str, run: Run) -> None:
    for name in ("VK_DRIVER_FILES", "WGPUPY_WGPU_ADAPTER_NAME"):
        done = run(*COMMANDS[command], env=dict(os.environ) | {name: "/nosuch"})
        assert done.returncode == 1
        assert done.stderr.startswith("gpt2-wgpu: error: ") and done.stderr.count("\n") == 1
        assert f"the environment has {name}='/nosuch': change or unset that" in done.stderr
