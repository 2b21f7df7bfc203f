"""The wheel is self-contained: engine, shaders, tokenizer, model and command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
from build_site import OWN_SOURCES, SITE_SOURCES

from gpt2_wgpu._version import __version__
from tests.cli.conftest import ROOT

BUILD = (sys.executable, "-m", "hatchling", "build", "-d")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("dist")
    build = [*BUILD, str(folder), "-t", "sdist"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(sdist)], cwd=folder, check=True)
    return folder / f"gpt2_wgpu-{__version__}"


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from the source distribution as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [*BUILD, str(folder), "-t", "wheel"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    assert path.name == f"gpt2_wgpu-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_the_source_distribution_builds_the_site(source: Path) -> None:
    """It holds every file that the site is made of, and its own builder finds them all."""
    names = (*SITE_SOURCES, *OWN_SOURCES, "scripts", "package.json", "package-lock.json")

    def files(root: Path) -> set[str]:
        paths = [path for name in names for path in (root / name, *(root / name).rglob("*"))]
        kept = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
        return {path.relative_to(root).as_posix() for path in kept}

    assert files(source) == files(ROOT)


def test_the_index_gets_absolute_pictures_and_links(wheel: zipfile.ZipFile) -> None:
    """A package index shows the README by itself: what is relative in it would be broken there."""
    about = Parser().parsestr(
        wheel.read(f"gpt2_wgpu-{__version__}.dist-info/METADATA").decode(), headersonly=False
    )
    home = dict(line.split(", ") for line in about.get_all("Project-URL", []))["Homepage"]
    readme = str(about.get_payload())
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)\)", readme)
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    assert len(pictures) >= 3 and len(links) >= 5
    assert all(url.startswith(raw) for url in pictures)
    assert all(url.startswith("https://") for url in links)
    for url in (*pictures, *links):  # what is ours is in this checkout
        for base in (raw, f"{home}/blob/main/"):
            assert not url.startswith(base) or (ROOT / url.removeprefix(base)).exists(), url


def test_what_the_wheel_holds(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "gpt2_wgpu").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shaders = {f"gpt2_wgpu/{path.relative_to(ROOT)}" for path in (ROOT / "shaders").rglob("*.wgsl")}
    model = {
        f"gpt2_wgpu/presets/fairytales/{name}" for name in ("config.json", "model.safetensors")
    }
    assert shaders
    assert package | shaders | model <= names
    rooms = {name.partition("/")[0] for name in names}
    assert rooms == {"gpt2_wgpu", f"gpt2_wgpu-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".png", ".pt", ".pyc"))]
    assert sum(info.compress_size for info in wheel.infolist()) < 20_000_000


def test_what_the_wheel_says_of_itself(wheel: zipfile.ZipFile) -> None:
    folder = f"gpt2_wgpu-{__version__}.dist-info"
    about = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert about["Version"] == __version__
    assert about["Requires-Python"] == ">=3.11"
    plain = [one for one in about.get_all("Requires-Dist", []) if "extra ==" not in one]
    everywhere = [one for one in plain if "emscripten" not in one]
    assert everywhere == ["wgpu<0.33,>=0.32"]
    assert all(one.endswith("sys_platform != 'emscripten'") for one in set(plain) - {*everywhere})
    assert "MIT License" in wheel.read(f"{folder}/licenses/LICENSE").decode()
    scripts = ConfigParser()
    scripts.read_string(wheel.read(f"{folder}/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"gpt2-wgpu": "gpt2_wgpu.cli.main:main"}


def test_the_wheel_tells_a_story_far_from_the_checkout(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    done = subprocess.run(
        [sys.executable, "-m", "gpt2_wgpu.cli", "generate", "-q", "--greedy", "-n", "4", "Once"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "NODEVICE_SELECT": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Once")
    assert len(done.stdout) > len("Once\n")
