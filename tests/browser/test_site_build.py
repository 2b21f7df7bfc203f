"""What `make site` writes: lock file, snapshot, and the same bytes from the same sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import snapshot
from pyodide_lock import PyodideLockSpec
from pyodide_lock.spec import InfoSpec
from pyodide_lock.utils import add_wheels_to_spec

from scripts import build_site
from scripts.build_site import KEPT, LOCK, Contents


def _fields(package: Any) -> dict[str, Any]:
    names = ("depends", "file_name", "imports", "install_dir", "name", "package_type", "sha256")
    return {name: getattr(package, name) for name in (*names, "unvendored_tests", "version")}


def test_the_lock_is_what_pyodides_own_tool_writes(site: Path) -> None:
    """Of the same wheels, as by `pyodide lockfile add-wheels --ignore-missing-dependencies`."""
    ours = json.loads((site / LOCK).read_text())
    empty = PyodideLockSpec(info=InfoSpec(**ours["info"], version=""), packages={})
    wheels = sorted((site / "wheels").iterdir())
    theirs = add_wheels_to_spec(
        empty, wheels, base_url="../wheels/", ignore_missing_dependencies=True
    )
    expected = {name: _fields(package) for name, package in theirs.packages.items()}
    assert expected["wgpu"]["depends"] == ["cffi", "rendercanvas"]
    expected["wgpu"]["depends"] = []  # of use to what was left out of its wheel, and nowhere here
    assert ours["packages"] == expected


def test_the_lock_names_no_server(site: Path) -> None:
    text = (site / LOCK).read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    for package in packages.values():
        assert (site / LOCK).parent.joinpath(package["file_name"]).is_file()
        assert set(package["depends"]) <= set(packages)


def test_equal_sources_give_equal_bytes(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built anew, but for what comes from elsewhere."""
    for name in ("pyodide", "wgpu"):
        shutil.copytree(KEPT / name, tmp_path / name)
        shutil.copy(KEPT / f"{name}.key", tmp_path)
    monkeypatch.setattr(build_site, "KEPT", tmp_path)
    monkeypatch.setattr(build_site, "snapshot", lambda files: {})
    again = {path: build_site._bytes(held) for path, held in build_site.contents().items()}
    assert len(again) > 50
    del again["manifest.json"]  # it names the snapshot
    assert again == {path: (site / path).read_bytes() for path in again}


@pytest.fixture
def files(site: Path) -> Contents:
    """What a snapshot is taken of."""
    manifest = json.loads((site / "manifest.json").read_text())
    return {path: site / path for path in manifest if "snapshot-" not in path}


def _refuse(files: Contents) -> bytes:
    raise AssertionError("taken again")


def test_a_snapshot_is_taken_once(
    site: Path, files: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_site, "take", _refuse)
    ((path, held),) = build_site.snapshot(files).items()
    assert (site / path).read_bytes() == build_site._bytes(held)
    monkeypatch.setitem(files, LOCK, b"other packages")
    with pytest.raises(AssertionError, match="taken again"):
        build_site.snapshot(files)


@pytest.mark.parametrize(
    ("browser", "why"),
    [(None, "there is no Chromium"), (shutil.which("false"), "Chromium ended with status 1")],
)
def test_a_site_without_a_snapshot(
    files: Contents,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    browser: str | None,
    why: str,
) -> None:
    monkeypatch.setattr(build_site, "KEPT", tmp_path)
    monkeypatch.setattr(snapshot, "find_chromium", lambda: browser)
    assert build_site.snapshot(files) == {}
    said = capsys.readouterr().err
    assert said.startswith(f"build_site: no snapshot: {why}")
    assert said.endswith("; the page starts Python without\n")


def test_python_that_does_not_start_gives_none(files: Contents, chromium: str) -> None:
    files["pyodide/pyodide.mjs"] = b"throw new Error('broken');"
    with pytest.raises(snapshot.NoSnapshotError, match="Python gave none: Error: broken"):
        snapshot.take(files)
