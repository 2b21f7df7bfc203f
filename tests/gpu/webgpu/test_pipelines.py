"""Kernels on a device: every variant compiles, and what a dispatch rejects is named."""

from __future__ import annotations

import re
import sys
from itertools import groupby, product
from operator import itemgetter

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShaderError
from gpt2_wgpu.tensors.dispatch import BufferSlice, dispatch
from gpt2_wgpu.tensors.tensor import empty
from gpt2_wgpu.webgpu import pipelines
from tests.webgpu.shaders import DOUBLE, write_shader

SHADERS = sorted(path.stem for path in pipelines.shader_directory().glob("*.wgsl"))

INCLUDE = re.compile(r'^//!include "(.*)\{(\w+)\}\.wgsl"', re.MULTILINE)


def variants(name):
    """Every variant that the files of ``shaders/include`` offer a kernel."""
    return variants_of(pipelines.shader_directory() / f"{name}.wgsl")


def variants_of(path):
    """The same for one file: each of its choices, with every variant of the file that it pastes."""
    offered = [
        [
            {key: chosen.stem.removeprefix(prefix)} | inner
            for chosen in sorted(pipelines.shader_directory().glob(f"include/{prefix}*"))
            for inner in variants_of(chosen)
        ]
        for prefix, key in INCLUDE.findall(path.read_text(encoding="utf-8"))
    ]
    return [
        {key: value for choice in chosen for key, value in choice.items()}
        for chosen in product(*offered)
    ]


@pytest.fixture
def cache(device, monkeypatch, tmp_path):
    """An empty pipeline cache for the device, over the test's own folder of shaders."""
    monkeypatch.setattr(device, "pipelines", pipelines.PipelineCache(device, tmp_path))
    return device.pipelines


class TestDispatch:
    @pytest.fixture
    def double(self, device, cache):
        write_shader(cache.directory, "double", DOUBLE)
        x, result = gw.tensor([1.0, 2.0, 3.0]), empty(device, (3,))

        def run(bindings=None, grid=(1, 1, 1), **params):
            given = {"count": 3, "scale": 2.0, "shift": -1, **params}
            dispatch(device, "double", grid, bindings or {"x": x, "result": result}, given)
            return result.tolist()

        yield run
        gw.dispose([x, result])

    def test_runs_with_what_the_source_declares(self, double):
        assert double() == [1.0, 3.0, 5.0]

    def test_wrong_bindings_are_named(self, double):
        with pytest.raises(ShaderError, match=r"double: bindings not set: \['result', 'x'\]"):
            double({"y": gw.tensor([1.0])})

    def test_too_many_workgroups_are_refused(self, double):
        with pytest.raises(LimitError, match=r"kernel double: \(1, 65536, 1\) workgroups"):
            double(grid=(1, 65536, 1))

    def test_an_empty_grid_runs_nothing(self, double, device):
        double()
        pending = len(device.queue._pending)
        double({"x": gw.tensor([0.0]), "result": gw.tensor([0.0])}, grid=(0, 1, 1))
        assert len(device.queue._pending) == pending

    def test_a_binding_larger_than_the_limit_is_refused(self, double, device, monkeypatch):
        limits = {**device.limits, "max-storage-buffer-binding-size": 8}
        monkeypatch.setattr(device, "limits", limits)
        with pytest.raises(LimitError, match=r"kernel double: x needs 12 bytes .* allows 8"):
            double()

    def test_a_tensor_of_another_device_is_refused(self, double):
        result = gw.tensor([0.0])
        with gw.Device():
            x = gw.tensor([1.0])
            with pytest.raises(ShaderError, match=r"kernel double: x is .* on another dev"):
                double({"x": x, "result": result})

    def test_a_part_of_a_tensor_can_be_bound(self, double):
        x, result = gw.tensor(list(range(128))), gw.tensor([0.0] * 3)
        double({"x": BufferSlice(x, 256, 256), "result": result})
        assert result.tolist() == [127.0, 129.0, 131.0]


def test_a_shader_that_does_not_compile_is_named(device, cache):
    write_shader(cache.directory, "broken", DOUBLE.replace("params.count", "params.number"))
    x = gw.tensor([1.0])
    with pytest.raises(ShaderError, match=r"shaders/broken\.wgsl .* does not compile on"):
        cache.get("broken")
        x.tolist()  # browsers report it with the next read
    x.dispose()


@pytest.fixture(scope="module")
def modest():
    """A device with WebGPU's guaranteed limits."""
    with gw.Device(limits="default") as opened:
        yield opened


VARIANTS = [(name, variant) for name in SHADERS for variant in variants(name)]


def with_every_choice():
    """A few of VARIANTS in which each kernel has each file that it may choose at least once."""
    for name, of_kernel in groupby(VARIANTS, itemgetter(0)):
        left = [((name, variant), {name, *variant.items()}) for name, variant in of_kernel]
        while left:
            best, covered = max(left, key=lambda pair: len(pair[1]))
            yield best
            rest = [(pair, choices - covered) for pair, choices in left]
            left = [(pair, choices) for pair, choices in rest if choices]


COVERING = [*with_every_choice()]


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(
            name,
            variant,
            id="-".join([name, *variant.values()]),
            marks=[pytest.mark.native("subgroups")] * ("_subgroups_" in name),
        )
        for name, variant in VARIANTS
    ],
)
def test_every_variant_compiles(modest, name, variant):
    """Within the limits that every adapter has: Chromium enforces them all, wgpu but some.

    Its SwiftShader takes a second for a pipeline. There each variant becomes a module, by Tint, and
    a few become pipelines, in which every choice of each kernel occurs.
    """
    with gw.tidy():
        x = gw.tensor([1.0], device=modest)
        if sys.platform != "emscripten" or (name, variant) in COVERING:
            assert modest.pipelines.get(name, variant).name == name
        else:
            source = pipelines.load_source(name, tuple(variant.items()))
            assert modest.gpu.create_shader_module(code=source)
        x.tolist()  # browsers report it with the next read
