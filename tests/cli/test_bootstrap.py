"""Setup for `make`: environments, and a driver if there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bootstrap
import pytest

from tests.cli.conftest import ROOT

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of programs: nothing else can be started by name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (folder / "env").symlink_to("/usr/bin/env")
    return folder


def add_tool(tools: Path, name: str, log: Path, status: int = 0) -> None:
    """Adds a program that writes down its arguments, prints to stdout and ends with `status`."""
    script = tools / name
    script.write_text(
        f'#!/bin/sh\necho "{name} $*" >> {log}\necho noise\necho reason >&2\nexit {status}\n'
    )
    script.chmod(0o755)


def test_an_adapter_that_is_there_is_enough(
    monkeypatch: pytest.MonkeyPatch, tools: Path, tmp_path: Path, capfd: Captured
) -> None:
    add_tool(tools, "apt-get", tmp_path / "log")
    monkeypatch.setattr(bootstrap, "find_adapter", lambda: "GPU")
    assert bootstrap.main(["adapter"]) == 0
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "log").exists()


def test_a_driver_is_installed_where_apt_is(
    monkeypatch: pytest.MonkeyPatch, tools: Path, tmp_path: Path, capfd: Captured
) -> None:
    log = tmp_path / "log"
    add_tool(tools, "apt-get", log)
    monkeypatch.setattr(bootstrap, "find_adapter", lambda: "llvmpipe" if log.exists() else None)
    assert bootstrap.main(["adapter"]) == 0
    assert log.read_text().splitlines() == [
        "apt-get -qq -y update",
        "apt-get -qq -y install --no-install-recommends mesa-vulkan-drivers",
    ]
    out, err = capfd.readouterr()
    assert out == ""  # stdout belongs to the story
    assert "installing mesa-vulkan-drivers" in err
    assert "noise" not in err


def test_a_person_installs_through_sudo(
    monkeypatch: pytest.MonkeyPatch, tools: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    add_tool(tools, "apt-get", log)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap, "find_adapter", lambda: None)
    assert bootstrap.main(["adapter"]) == 1
    assert not log.exists()
    add_tool(tools, "sudo", log)
    assert bootstrap.main(["adapter"]) == 1
    command = f"sudo env DEBIAN_FRONTEND=noninteractive {tools}/apt-get -qq -y"
    assert log.read_text().splitlines() == [
        f"{command} update",
        f"{command} install --no-install-recommends mesa-vulkan-drivers",
    ]


@pytest.mark.parametrize("apt", [False, True])
def test_one_sentence_says_what_to_install(
    apt: bool, monkeypatch: pytest.MonkeyPatch, tools: Path, tmp_path: Path, capfd: Captured
) -> None:
    if apt:  # which fails
        add_tool(tools, "apt-get", tmp_path / "log", status=100)
    monkeypatch.setattr(bootstrap, "find_adapter", lambda: None)
    assert bootstrap.main(["adapter"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert ("apt-get cannot install mesa-vulkan-drivers:\nreason\n" in err) == apt
    assert err.endswith(f"bootstrap: error: {bootstrap.NO_ADAPTER}\n")
    for word in ("apt-get install mesa-vulkan-drivers", "dnf", "vulkan-swrast", "Metal", "D3D12"):
        assert word in bootstrap.NO_ADAPTER


@pytest.mark.skipif(sys.platform != "linux", reason="only Vulkan drivers can be hidden")
def test_an_opengl_adapter_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap.find_adapter()
    monkeypatch.setenv("VK_DRIVER_FILES", "/nonexistent")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    assert bootstrap.find_adapter() is None


def test_an_environment_is_made_once_and_mended(tmp_path: Path, capfd: Captured) -> None:
    place = tmp_path / "venv"
    (place / "bin").mkdir(parents=True)  # left by a run that was cut off
    requirement = "tiny-but-not-there @ file:///nonexistent"
    assert bootstrap.main(["install", str(place), requirement]) != 0
    python = place / "bin" / "python"
    assert subprocess.run([str(python), "-m", "pip", "--version"]).returncode == 0
    made = (place / "pyvenv.cfg").stat().st_mtime_ns
    assert bootstrap.main(["install", str(place), "pip"]) == 0
    assert (place / "pyvenv.cfg").stat().st_mtime_ns == made
    capfd.readouterr()


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert bootstrap.main(["install", "nowhere", "."]) == 1
    assert capfd.readouterr().err == (
        "bootstrap: error: Python 3.11 or newer is needed, this is 3.9; try 'make "
        "PYTHON=python3.12'\n"
    )


def test_a_python_without_ensurepip(
    monkeypatch: pytest.MonkeyPatch, tools: Path, tmp_path: Path, capfd: Captured
) -> None:
    monkeypatch.setattr(bootstrap, "_imports", lambda module: False)
    assert bootstrap.main(["install", str(tmp_path / "venv"), "."]) == 1
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert capfd.readouterr().err.endswith(
        f"bootstrap: error: cannot make a virtual environment: install {package} and try again\n"
    )
    add_tool(tools, "apt-get", tmp_path / "log", status=100)
    assert bootstrap.main(["install", str(tmp_path / "venv"), "."]) == 1
    assert f"install --no-install-recommends {package}" in (tmp_path / "log").read_text()


def test_wrong_use_shows_the_commands(capfd: Captured) -> None:
    for argv in ([], ["install"], ["install", "somewhere"], ["dance"]):
        assert bootstrap.main(argv) == 2
    assert "bootstrap.py install DIR REQUIREMENT" in capfd.readouterr().err


def test_make_help_lists_its_goals() -> None:
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    for goal in ("demo", "test", "test-fast", "lint", "format", "clean", "help"):
        assert f"make {goal} " in done.stdout


def test_wheels_for_the_browser_are_downloaded_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    status = 1

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        bootstrap.CLIENT_FOLDER.mkdir()
        return subprocess.CompletedProcess(command, status)

    wanted = tmp_path / "wheels.txt"
    wanted.write_text("one==1")
    monkeypatch.setattr(bootstrap, "CLIENT_WHEELS", wanted)
    monkeypatch.setattr(bootstrap, "CLIENT_FOLDER", tmp_path / "clients")
    monkeypatch.setattr(subprocess, "run", run)
    assert bootstrap.download_wheels() == 1
    status = 0
    assert [bootstrap.download_wheels() for _ in range(2)] == [0, 0]
    assert len(commands) == 2  # one failed
    assert {"--require-hashes", str(wanted)} <= set(commands[0])
    wanted.write_text("one==2")
    assert bootstrap.download_wheels() == 0
    assert len(commands) == 3
