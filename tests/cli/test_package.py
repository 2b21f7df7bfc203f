"""The wheel alone is the product: engine, shaders, tokenizer and model, and the command."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

from gpt2_wgpu._version import __version__
from tests.cli.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of this checkout, built by way of the source distribution, as pip would."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(sdist)], cwd=folder, check=True)
    source = folder / f"gpt2_wgpu-{__version__}"
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    assert path.name == f"gpt2_wgpu-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as opened:
        yield opened


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
