"""Errors for a missing or wrong wgpu, distinct from those for a missing GPU."""

from __future__ import annotations

import builtins
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DependencyError, NoAdapterError
from gpt2_wgpu.webgpu import bindings

WHEEL = "wgpu-0.32.0-py3-none-any.whl"


pytestmark = pytest.mark.native("fakes of wgpu")


def wgpu_of(version):
    return SimpleNamespace(
        version_info=(*map(int, version.split(".")),), __version__=version, gpu=None
    )


def broken(name):
    """An import of wgpu, or of its native library, that fails."""
    real = builtins.__import__

    def find(asked, *rest, **options):
        if asked == (name if name.startswith("wgpu") else "wgpu"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(asked, *rest, **options)

    return find


@pytest.mark.parametrize("platform", ["linux", "emscripten"])
@pytest.mark.parametrize(
    ("missing", "version", "said"),
    [
        ("wgpu", None, "the package wgpu is not installed: "),
        ("cffi", None, "the package wgpu cannot be loaded (No module named 'cffi'): "),
        (None, "0.31.0", "wgpu 0.31.0 is installed, and this package needs 0.32: "),
        (None, "0.33.1", "wgpu 0.33.1 is installed, and this package needs 0.32: "),
    ],
)
def test_what_is_wrong_with_wgpu(monkeypatch, platform, missing, version, said):
    monkeypatch.setattr(sys, "platform", platform)
    if missing:
        monkeypatch.setattr(builtins, "__import__", broken(missing))
    else:
        monkeypatch.setitem(sys.modules, "wgpu", wgpu_of(version))
    asking: list[Any] = (
        [bindings.load_wgpu] if platform == "emscripten" else [gw.adapters, gw.Device]
    )
    for ask in asking:
        with pytest.raises(DependencyError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(said)
        assert not isinstance(caught.value, NoAdapterError)
        assert isinstance(caught.value, ImportError)
        assert (WHEEL if platform == "emscripten" else "pip install") in message


def test_a_native_library_that_does_not_load(monkeypatch):
    monkeypatch.setattr(builtins, "__import__", broken("wgpu.backends.wgpu_native"))
    with pytest.raises(DependencyError, match=r"wgpu cannot be loaded \(No module named"):
        gw.adapters()


def test_the_release_is_the_one_that_the_package_requires():
    project = Path(__file__).parents[3] / "pyproject.toml"
    required = tomllib.loads(project.read_text())["project"]["dependencies"]
    major, minor = bindings.WGPU
    assert f"wgpu>={major}.{minor},<{major}.{minor + 1}" in required
