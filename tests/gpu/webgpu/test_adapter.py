"""Adapter selection, by arguments and environment variables, and its side effects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import NoAdapterError
from gpt2_wgpu.webgpu import sync
from gpt2_wgpu.webgpu.adapter import request_adapter
from gpt2_wgpu.webgpu.bindings import load_wgpu

pytestmark = pytest.mark.native("environment variables and processes")


def fake(name, backend="Vulkan", kind="CPU"):
    info = {"device": name, "backend_type": backend, "adapter_type": kind}
    return types.SimpleNamespace(info=info)


class Promise:
    def __init__(self, value):
        self.value = value

    def sync_wait(self):
        return self.value


@pytest.fixture
def offered(monkeypatch):
    """Sets what wgpu prefers and what it lists."""

    wgpu = load_wgpu()  # its backend puts another object in place of wgpu.gpu

    def offer(preferred, *listed):
        monkeypatch.setattr(wgpu.gpu, "request_adapter_async", lambda **_: Promise(preferred))
        monkeypatch.setattr(wgpu.gpu, "enumerate_adapters_async", lambda: Promise([*listed]))

    for name in ("WGPUPY_WGPU_ADAPTER_NAME", "WGPU_BACKEND_TYPE", "VK_DRIVER_FILES"):
        monkeypatch.delenv(name, raising=False)
    return offer


def requested(preference="high-performance"):
    return sync(request_adapter(preference), "")


def test_opengl_is_passed_over_for_the_best_of_the_rest(offered):
    gl = fake("gl", "OpenGL", "DiscreteGPU")
    cpu, small, other = fake("cpu"), fake("small", kind="IntegratedGPU"), fake("x", kind="Unknown")
    big = fake("big", kind="DiscreteGPU")
    offered(gl, gl, cpu, other, small, big)
    assert (requested(), requested("low-power")) == (big, small)
    offered(gl, gl, cpu, other)
    assert requested() is other
    offered(gl, cpu, gl)
    assert requested() is cpu
    offered(cpu, big, cpu)  # what wgpu prefers, if it can serve
    assert requested() is cpu


def test_opengl_alone_is_no_adapter(offered):
    gl = fake("gl", "OpenGL", "DiscreteGPU")
    offered(gl, gl)
    with pytest.raises(NoAdapterError, match=r"no GPU adapter found: .*only an OpenGL adapter"):
        requested()


@pytest.mark.parametrize("value", ["OpenGL", "Vulcan", "webgpu"])
def test_a_backend_that_is_not_supported_is_named(monkeypatch, value):
    monkeypatch.setenv("WGPU_BACKEND_TYPE", value)
    with pytest.raises(NoAdapterError, match=f"variable WGPU_BACKEND_TYPE is '{value}', which is"):
        gw.Device()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WGPUPY_WGPU_ADAPTER_NAME", "Voodoo 2"),
        ("WGPU_BACKEND_TYPE", "D3D12" if sys.platform != "win32" else "Metal"),
    ],
)
def test_a_variable_that_matches_nothing_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(NoAdapterError, match=f"the environment has {name}='{value}': change or"):
        gw.Device()
    monkeypatch.delenv(name)
    gw.Device(adapter=0).close()


def test_a_variable_does_not_change_an_adapter_that_is_named(monkeypatch):
    monkeypatch.setenv("WGPUPY_WGPU_ADAPTER_NAME", "Voodoo 2")
    gw.Device(adapter=0).close()


def test_variables_are_not_blamed_where_none_is_set(offered):
    offered(fake("gl", "OpenGL"))
    with pytest.raises(NoAdapterError) as seen:
        requested()
    assert "environment" not in str(seen.value)


def test_a_driver_variable_is_named_when_it_hides_all(monkeypatch, offered):
    offered(fake("gl", "OpenGL"))
    monkeypatch.setenv("VK_DRIVER_FILES", "/nosuch")
    for use in (gw.Device, lambda: gw.Device(adapter=0)):
        with pytest.raises(NoAdapterError, match="VK_DRIVER_FILES='/nosuch': change or unset"):
            use()


OTHERS = """
import json, os, sys
before = dict(os.environ)
if {ours}:
    import gpt2_wgpu as gw
    with gw.Device() as device:
        gw.tensor([1.0]).tolist()
import wgpu
seen = [one.summary for one in wgpu.gpu.enumerate_adapters_sync()]
limits = wgpu.gpu.request_adapter_sync().request_device_sync().limits
print(json.dumps([seen, limits, dict(os.environ) == before]))
"""


def test_other_users_of_wgpu_see_what_they_saw(monkeypatch):
    """The same adapters and limits, OpenGL's included, and an unchanged environment."""
    seen = []
    for ours in (False, True):
        command = [sys.executable, "-c", OTHERS.format(ours=ours)]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        seen.append(json.loads(done.stdout))
    assert seen[0] == seen[1]
    assert seen[1][2]
