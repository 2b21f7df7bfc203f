"""`scripts/build_site.py`: accepted folders, and deleted files."""

from __future__ import annotations

import re
from pathlib import Path

import build_site
import pytest
from build_site import ROOT, Contents, write

from gpt2_wgpu.cli.static_site import POLICY, Site


def contents(**files: bytes) -> Contents:
    """Files of a site (`__` is a slash), and their manifest."""
    named: Contents = {name.replace("__", "/"): data for name, data in files.items()}
    return named | {"manifest.json": build_site.manifest(named)}


def test_only_what_was_built_before_is_deleted(tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert write(site, contents(index=b"1", web__old=b"2", web__deep__old=b"3")) == 4
    (site / "CNAME").write_text("a stranger's")
    (site / "web" / "mine").write_text("a stranger's")
    assert write(site, contents(index=b"1", new=b"4")) == 2
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert found == {"index", "new", "manifest.json", "CNAME", "web/mine"}
    assert not (site / "web" / "deep").exists()
    assert write(site, contents(index=b"1", new=b"4")) == 0


@pytest.mark.parametrize("manifest", [None, "{}x", "[]", '{"name": "an app", "icons": []}'])
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match="is not empty and holds no built site"):
        write(tmp_path, contents(index=b"1"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_manifest_never_reaches_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept")
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"../secret": {"bytes": 4, "sha256": "00"}}')
    write(site, contents(index=b"1"))
    assert (tmp_path / "secret").read_text() == "kept"


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent, ROOT / "web" / ".."])
def test_the_checkout_is_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match="holds this checkout"):
        write(folder, contents(index=b"1"))


def test_one_policy_for_page_server_and_hosts() -> None:
    (path, policy) = re.fullmatch(
        r"(.+)\n  Content-Security-Policy: (.+)\n", build_site.headers().decode()
    ).groups()  # type: ignore[union-attr]
    assert (path, policy) == ("/*", POLICY)


def test_a_loop_of_links_is_not_served(tmp_path: Path) -> None:
    """resolve() raises RuntimeError on one."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "loop").symlink_to("loop")
    (site / "a").symlink_to("b")
    (site / "b").symlink_to("a")
    found = Site(site)
    assert found.find("/loop") is None
    assert found.find("/a") is None
    assert found.find("/a/index.html") is None
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "vocab.json").symlink_to("vocab.json")
    served = Site(site, {"model": model})
    assert served.find("/models/model/config.json") is not None
    assert served.find("/models/model/vocab.json") is None
