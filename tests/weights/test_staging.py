"""A staged directory: all files or none, whatever ends the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.staging import StagedDirectory

NAMES = ("a", "b", "last")
KILLED = """
import os, signal, sys
from pathlib import Path
from gpt2_wgpu.weights.staging import StagedDirectory
with StagedDirectory(Path(sys.argv[1]), ("a", "b", "last"), "last") as stage:
    (stage.path / "a").write_text("half")
    if len(sys.argv) > 2:
        print("ready", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fill(destination: Path, text: str = "new", names: tuple[str, ...] = NAMES) -> None:
    with StagedDirectory(destination, NAMES, "last") as stage:
        for name in names:
            (stage.path / name).write_text(text)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_a_new_directory_appears_in_one_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *both: (renames.append(both), rename(*both)))
    monkeypatch.setattr(os, "replace", lambda *both: pytest.fail("no file is moved alone"))
    fill(tmp_path / "deep" / "new")
    assert contents(tmp_path / "deep" / "new") == dict.fromkeys(NAMES, "new")
    assert len(renames) == 1
    assert os.listdir(tmp_path / "deep") == ["new"]


def test_an_existing_directory_keeps_what_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("mine")
    fill(tmp_path, "old")
    fill(tmp_path, "new", ("a", "last"))
    assert contents(tmp_path) == {"README": "mine", "a": "new", "last": "new"}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), StagedDirectory(tmp_path / "x", NAMES, "last") as stage:
        (stage.path / "a").write_text("new")
        raise ZeroDivisionError
    assert contents(tmp_path / "x") == dict.fromkeys(NAMES, "old")
    with pytest.raises(ZeroDivisionError), StagedDirectory(tmp_path / "y", NAMES, "last"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("failing", range(6))
def test_a_replacement_that_fails_is_undone(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old", ("a", "b", "last"))
    states = []
    replace = Path.replace

    def fails(source: Path, target: Path) -> Path:
        states.append(contents_of_files(tmp_path))
        if len(states) == failing + 1:
            raise OSError(28, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(WeightsError, match="No space left"):
        fill(tmp_path, "new")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "old")
    for state in states:  # at no time is there a mixture that loads
        assert "last" not in state or set(state.values()) == {"old"}


def contents_of_files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_is_removed_by_the_next(exists: bool, tmp_path: Path) -> None:
    destination = tmp_path / "x"
    if exists:
        fill(destination, "old")
    subprocess.run([sys.executable, "-c", KILLED, str(destination)], check=False)
    left = list(tmp_path.rglob("*.part"))
    assert len(left) == 1
    if not exists:
        assert not destination.exists()
    fill(destination)
    assert contents(destination) == dict.fromkeys(NAMES, "new")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x"), "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fill(tmp_path / "x")
        assert len(list(tmp_path.glob("*.part"))) == 1
        process.kill()
    shutil.rmtree(tmp_path / "x")
    fill(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be made"):
        StagedDirectory(tmp_path / "file" / "under", NAMES, "last")
