"""The pipeline cache, without a GPU: what it compiles, and how often."""

from __future__ import annotations

import pytest
import wgpu

from gpt2_wgpu.errors import ShaderError
from gpt2_wgpu.webgpu.pipelines import PipelineCache, check_bindings
from tests.webgpu.fakes import FakeDevice
from tests.webgpu.shaders import DOUBLE, write_shader


@pytest.fixture
def device():
    """A fake device: its GPU records calls."""
    return FakeDevice()


@pytest.fixture
def cache(device, tmp_path):
    """A cache over a folder with the kernel double, which has two variants, and a broken one."""
    for kind in ("a", "b"):
        write_shader(tmp_path, f"include/kind_{kind}", f"// {kind}")
    write_shader(tmp_path, "double", f'//!include "kind_{{kind}}.wgsl"\n{DOUBLE}')
    write_shader(tmp_path, "broken", "fn main() {}")
    return PipelineCache(device, tmp_path)


def test_each_kernel_is_compiled_once(device, cache):
    first = cache.get("double", {"kind": "a"}, {"TILE": 4})
    assert cache.get("double", {"kind": "a"}, {"TILE": 4}) is first
    assert device.gpu.count("create_compute_pipeline") == 1


def test_constants_make_pipelines_of_one_module_and_variants_make_modules(device, cache):
    kernels = [
        cache.get("double", {"kind": "a"}, {"TILE": 4}),
        cache.get("double", {"kind": "a"}, {"TILE": 8}),
        cache.get("double", {"kind": "b"}, {"TILE": 8}),
    ]
    assert len({id(kernel) for kernel in kernels}) == 3
    assert device.gpu.count("create_compute_pipeline") == 3
    assert device.gpu.count("create_shader_module") == 2


def test_the_order_of_constants_makes_no_difference(cache):
    first = cache.get("double", {"kind": "a"}, {"X": 1, "Y": 2})
    assert cache.get("double", {"kind": "a"}, {"Y": 2, "X": 1}) is first


def test_the_layout_follows_the_signature(device, cache):
    kernel = cache.get("double", {"kind": "a"}, {"TILE": 4})
    made = dict(device.gpu.calls)
    entries = made["create_bind_group_layout"]["entries"]
    assert [(entry["binding"], entry["buffer"]["type"]) for entry in entries] == [
        (0, "read-only-storage"),
        (3, "storage"),
        (7, "uniform"),
    ]
    assert made["create_compute_pipeline"]["compute"]["constants"] == {"TILE": 4}
    assert made["create_shader_module"]["code"].startswith("// a\n")
    assert kernel.layout == ("create_bind_group_layout", 2)


def test_an_error_of_the_compiler_names_kernel_variant_and_adapter(device, cache):
    device.gpu.failing["create_compute_pipeline"] = wgpu.GPUValidationError("no main")
    expected = r"shaders/double\.wgsl \{'kind': 'b'\} \{'T': 1\} does not compile on a GPU: no main"
    with pytest.raises(ShaderError, match=expected):
        cache.get("double", {"kind": "b"}, {"T": 1})
    del device.gpu.failing["create_compute_pipeline"]
    assert cache.get("double", {"kind": "b"}, {"T": 1}).name == "double"  # failures are not kept


def test_a_kernel_without_a_signature_is_not_compiled(device, cache):
    with pytest.raises(ShaderError, match="kernel broken: declares no `struct Params`"):
        cache.get("broken")
    assert not device.gpu.calls


def test_bindings_must_be_those_of_the_signature(cache):
    kernel = cache.get("double", {"kind": "a"})
    check_bindings(kernel, {"x": None, "result": None})
    with pytest.raises(ShaderError, match=r"bindings not set: \['result'\], unknown: \['y'\]"):
        check_bindings(kernel, {"x": None, "y": None})
