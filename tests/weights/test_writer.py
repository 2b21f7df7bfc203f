"""Atomic writer, and partial files of killed processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.writer import AtomicFile


def test_parts_of_killed_processes_are_removed_after_a_day(tmp_path: Path) -> None:
    for name, age in {
        ".a.txt.0.part": 90_000,
        ".a.txt.1.part": 60,
        ".b.txt.2.part": 90_000,
    }.items():
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    with AtomicFile(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.1.part", ".b.txt.2.part", "a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    file = AtomicFile(path)
    file._file.close()
    file._file = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(WeightsError, match=r"a\.txt: cannot be written: No space"), file:
        file.write(b"new")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]
