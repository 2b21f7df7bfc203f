"""Staged directory: all files or none, for any end of the process."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
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
    (left,) = tmp_path.rglob("*.part")
    age(left, 120)
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
        (left,) = tmp_path.glob("*.part")
        age(left, 48 * 3600)  # a lock counts, and not how long it takes
        before = open_descriptors()
        fill(tmp_path / "x")
        assert open_descriptors() == before
        assert left.exists()
        process.kill()
    shutil.rmtree(tmp_path / "x")
    fill(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("seconds", [0, 120])
def test_a_directory_that_was_just_made_is_not_stale(seconds: int, tmp_path: Path) -> None:
    made = tmp_path / ".x.0.part"  # another process's, not locked yet
    made.mkdir()
    age(made, seconds)
    fill(tmp_path / "x")
    assert made.exists() == (seconds == 0)


@pytest.mark.parametrize(("seconds", "stays"), [(120, True), (48 * 3600, False)])
def test_without_locks_the_age_tells(
    seconds: int, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def reject(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", reject)
    left = tmp_path / ".x.0.part"
    left.mkdir()
    age(left, seconds)
    before = open_descriptors()
    fill(tmp_path / "x")
    assert left.exists() == stays
    assert open_descriptors() == before


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("at", range(6))
def test_a_signal_right_after_a_rename_loses_nothing(
    at: int, signals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old")
    calls = 0
    replace = Path.replace

    def interrupted(source: Path, target: Path) -> None:
        nonlocal calls
        replace(source, target)
        calls += 1
        if at < calls <= at + signals:  # the second comes while files are moved back
            raise SystemExit(143)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(SystemExit):
        fill(tmp_path, "new")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "old")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SystemExit(143)])
def test_old_files_that_cannot_be_moved_back_are_kept(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old")
    calls = 0
    replace = Path.replace

    def fails(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:  # one new file is in place; nothing can be moved back
            raise error
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(WeightsError, match="move the old ones back from") as raised:
            fill(tmp_path, "new")
    (kept,) = tmp_path.glob(".convert.*.part/replaced")
    assert str(kept) in str(raised.value)
    assert contents(kept) == dict.fromkeys(NAMES, "old")
    age(kept.parent, 48 * 3600)
    fill(tmp_path, "new")  # the next one leaves them alone
    assert contents(kept) == dict.fromkeys(NAMES, "old")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be created"):
        StagedDirectory(tmp_path / "file" / "under", NAMES, "last")
