"""Kernels without naga's counters of loops: the same bits, errors as always, or none at all."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import gpt2_wgpu as gw
from benchmarks.gpu.loop_bounds import without_loop_bounds
from gpt2_wgpu import nn
from gpt2_wgpu.errors import ShaderError
from gpt2_wgpu.tensors import ops
from tests.gpu import references
from tests.gpu.matrices import free, matrix_of

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("wgpu-native")]


@pytest.mark.parametrize("barriers", [False, True])
def test_results_are_equal_to_the_bit(device, capabilities, barriers):
    capabilities(prefers_no_barriers=not barriers)
    matrix = matrix_of(device, references.random(65, 136), "float16")
    with gw.tidy():
        x = gw.tensor(references.random(7, 136, seed=1))

        def results():
            return nn.linear(x, matrix).numpy(), ops.softmax(x).numpy()

        expected, own = results(), device.pipelines
        with without_loop_bounds(device):
            assert device.pipelines is not own
            found = results()
        assert device.pipelines is own
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()
    free(matrix)


def test_another_c_function_makes_the_modules(device, monkeypatch):
    from wgpu.backends.wgpu_native import _api

    asked = []
    public = type(device.gpu).create_shader_module
    monkeypatch.setattr(
        type(device.gpu),
        "create_shader_module",
        lambda *args, **given: asked.append(given["label"]) or public(*args, **given),
    )
    with without_loop_bounds(device):
        assert device.pipelines.get("activate").name == "activate"
    assert not asked and _api.lib.WGPUShaderRuntimeChecks_BoundsChecks == 1


def test_code_that_does_not_compile_is_an_error(device, tmp_path):
    (tmp_path / "wrong.wgsl").write_text(
        "struct Params { count: u32, }\n@group(0) @binding(0) var<uniform> params: Params;\n"
        "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }"
    )
    with without_loop_bounds(device):
        device.pipelines.directory = tmp_path
        with pytest.raises(ShaderError, match=r"wrong\.wgsl"):
            device.pipelines.get("wrong")


@pytest.mark.parametrize("lib", [SimpleNamespace(), None])
def test_another_version_of_wgpu_has_none(device, monkeypatch, lib):
    api = None if lib is None else SimpleNamespace(lib=lib, ffi=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wgpu.backends.wgpu_native._api", api)
    assert without_loop_bounds(device) is None


def _other_module(label, internal, device, checks):
    raise AssertionError("made")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPUShaderModule", None),
        ("GPUShaderModule", _other_module),
        ("libf", SimpleNamespace()),
        ("libf", SimpleNamespace(_make_proxy_func=lambda function: function)),
    ],
    ids=["no module", "other arguments", "no proxy", "other proxy"],
)
def test_other_private_parts_of_wgpu_give_none(device, monkeypatch, name, value):
    from wgpu.backends.wgpu_native import _api

    assert without_loop_bounds(device) is not None
    if value is None:
        monkeypatch.delattr(_api, name)
    else:
        monkeypatch.setattr(_api, name, value)
    assert without_loop_bounds(device) is None
