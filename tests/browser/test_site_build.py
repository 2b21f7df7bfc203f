"""What `make site` writes: lock file, snapshot, and the same bytes from the same sources."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import build_site
import pytest
import site_lock
import snapshot
from build_site import KEPT, LOCK, Contents
from packaging.requirements import Requirement

from tests.browser.serving import ROOT

NEEDS_NEWER_PYTHON = (
    "pyodide-build needs Python 3.12 or newer, and this is "
    f"{sys.version_info.major}.{sys.version_info.minor}: run `make PYTHON=python3.12 test`"
)


@pytest.mark.parametrize("tool", ["pyodide-build", "pyodide-lock"])
def test_either_tool_writes_the_lock_of_the_site(
    site: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    if tool == "pyodide-build" and sys.version_info < (3, 12):
        pytest.skip(NEEDS_NEWER_PYTHON)
    assert site_lock.has_pyodide_build() == (sys.version_info >= (3, 12))
    monkeypatch.setattr(site_lock, "has_pyodide_build", lambda: tool == "pyodide-build")
    wheels = sorted((site / "wheels").iterdir())
    assert (
        site_lock.lock(KEPT / "pyodide" / "pyodide-lock.json", wheels) == (site / LOCK).read_bytes()
    )


def test_a_wheel_that_requires_what_the_site_lacks_gets_no_lock(site: Path) -> None:
    own, _ = sorted((site / "wheels").iterdir())
    with pytest.raises((RuntimeError, subprocess.CalledProcessError)):
        site_lock.lock(KEPT / "pyodide" / "pyodide-lock.json", [own])


def test_a_missing_tool_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(site_lock, "has_pyodide_build", lambda: False)
    monkeypatch.setitem(sys.modules, "pyodide_lock", None)
    assert build_site.main([str(tmp_path / "site")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("build_site: error: pyodide-lock is not installed; run 'make site', or")
    assert not (tmp_path / "site").exists()


def test_the_slim_wheels(site: Path) -> None:
    """micropip installs them with no package from elsewhere, and RECORD is correct."""
    for path in (site / "wheels").iterdir():
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
        (info,) = {name.partition("/")[0] for name in files if ".dist-info/" in name}
        metadata = Parser().parsestr(files[f"{info}/METADATA"].decode())
        required = map(Requirement, metadata.get_all("Requires-Dist", []))
        here = {"sys_platform": "emscripten", "extra": ""}
        needed = {one.name for one in required if one.marker is None or one.marker.evaluate(here)}
        assert needed == ({"wgpu"} if path.name.startswith("gpt2_wgpu-") else set())
        rows = list(csv.reader(files[f"{info}/RECORD"].decode().splitlines()))
        assert [name for name, _, _ in rows] == sorted(files)
        for name, digest, size in rows:
            if name == f"{info}/RECORD":
                continue
            right = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=")
            assert (digest, size) == (f"sha256={right.decode()}", str(len(files[name]))), name


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


CODE_SIZE = """
import { minifySync } from "vite";
import { readFileSync } from "node:fs";
const plain = { compress: false, mangle: false, codegen: { removeWhitespace: false } };
const size = (path) => Buffer.byteLength(minifySync(path, readFileSync(path, "utf8"), plain).code);
console.log(process.argv.slice(1).reduce((sum, path) => sum + size(path), 0));
"""


def test_the_javascript_stays_small() -> None:
    """At most 193 kB of code; comments, with the types, come on top."""
    scripts = sorted((ROOT / "web").rglob("*.js"))
    assert ROOT / "web" / "gpt2.js" in scripts
    command = ["node", "--input-type=module", "--eval", CODE_SIZE, *map(str, scripts)]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(found.stdout) <= 193_000


@pytest.fixture
def files(site: Path) -> Contents:
    """What a snapshot is taken of."""
    manifest = json.loads((site / "manifest.json").read_text())
    return {path: site / path for path in manifest if "snapshot-" not in path}


def _refuse(files: Contents) -> bytes:
    raise AssertionError("taken again")


def test_the_list_of_first_kernels_is_small(site: Path) -> None:
    assert 10_000 < (site / "web" / "first-kernels.bin").stat().st_size <= 60_000


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
    [(None, "Chromium is not installed"), (shutil.which("false"), "Chromium ended with status 1")],
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
    with pytest.raises(snapshot.NoSnapshotError, match="Python failed: Error: broken"):
        snapshot.take(files)
