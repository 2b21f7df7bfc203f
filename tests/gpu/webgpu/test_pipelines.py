"""Loading WGSL: includes, signatures, and errors that name the kernel and what is wrong."""

from __future__ import annotations

import re
import struct
from itertools import product

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShaderError
from gpt2_wgpu.tensors.dispatch import Part, dispatch
from gpt2_wgpu.tensors.tensor import empty
from gpt2_wgpu.webgpu import pipelines

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


DOUBLE = """
struct Params { count: u32, /* */ scale: f32, shift: i32, } // order: of declaration
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0)  @binding(3)
var<storage,read_write> result: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) { result[id.x] = x[id.x] * params.scale + f32(params.shift); }
}
"""


@pytest.fixture
def shaders(tmp_path, monkeypatch):
    """A folder of shaders of the test's own: write("name", source)."""

    def write(name, source):
        path = tmp_path / f"{name}.wgsl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")

    monkeypatch.setattr(pipelines, "shader_directory", lambda: tmp_path)
    pipelines.load_source.cache_clear()
    yield write
    pipelines.load_source.cache_clear()


@pytest.fixture
def cache(device, monkeypatch):
    """An empty kernel cache for the device."""
    monkeypatch.setattr(device, "kernels", pipelines.KernelCache(device))
    return device.kernels


class TestSignature:
    def test_is_read_from_the_source(self):
        signature = pipelines.parse_signature("double", DOUBLE)
        assert signature.bindings == {"x": (0, "read-only-storage"), "result": (3, "storage")}
        assert signature.uniform == 7
        assert signature.fields == ("count", "scale", "shift")
        assert signature.packing.format == "<Ifi"

    @pytest.mark.parametrize("line", ["struct Params", "var<uniform>"])
    def test_params_are_required(self, line):
        source = "\n".join(row for row in DOUBLE.splitlines() if line not in row)
        with pytest.raises(ShaderError, match="kernel double: declares no `struct Params`"):
            pipelines.parse_signature("double", source)

    def test_unknown_address_spaces_are_refused(self):
        source = DOUBLE.replace("storage, read>", "storage, write>")
        with pytest.raises(ShaderError, match=r"kernel double: x is declared var<storage, write>"):
            pipelines.parse_signature("double", source)

    @pytest.mark.parametrize("field", ["offset: vec4<u32>", "steps: array<u32, 4>", "x: f16"])
    def test_other_types_of_parameters_are_refused(self, field):
        source = DOUBLE.replace("shift: i32", field)
        with pytest.raises(ShaderError, match="only u32, i32 and f32"):
            pipelines.parse_signature("double", source)

    @pytest.mark.parametrize("name", SHADERS)
    def test_every_shader_says_what_it_computes(self, name):
        text = (pipelines.shader_directory() / f"{name}.wgsl").read_text(encoding="utf-8")
        assert text.startswith("// ") and "//\n// Formula:" in text and "\n// Threads:" in text


class TestIncludes:
    def test_are_pasted_by_variant_and_nest(self, shaders):
        shaders("main", '// top\n//!include "load_{kind}.wgsl"\nfn main() {}\n')
        shaders("include/load_a", '//!include "deep.wgsl" (why)\nfn load() {}')
        shaders("include/deep", "const DEEP = 1;")
        source = pipelines.load_source("main", (("kind", "a"),))
        assert source == "// top\nconst DEEP = 1;\nfn load() {}\nfn main() {}\n"

    def test_an_unset_variant_is_named(self, shaders):
        shaders("main", '//!include "load_{kind}.wgsl"\n')
        with pytest.raises(ShaderError, match="kernel main: the variant must set 'kind'"):
            pipelines.load_source("main")

    def test_absent_files_are_named(self, shaders):
        with pytest.raises(ShaderError, match=r"kernel nothing: cannot read .*nothing\.wgsl"):
            pipelines.load_source("nothing")
        shaders("main", '//!include "gone.wgsl"\n')
        with pytest.raises(ShaderError, match=r"kernel main: cannot read .*include.gone\.wgsl"):
            pipelines.load_source("main")


class TestPacking:
    def pack(self, **params):
        signature = pipelines.parse_signature("double", DOUBLE)
        return pipelines.Kernel("double", signature, None, None).pack(params)

    def test_follows_the_declaration(self):
        assert self.pack(shift=-2, count=3, scale=0.5) == struct.pack("<Ifi", 3, 0.5, -2)

    def test_unset_and_unknown_parameters_are_named(self):
        with pytest.raises(ShaderError, match=r"not set: \['scale'\], unknown: \['scales'\]"):
            self.pack(count=1, scales=2.0, shift=0)
        with pytest.raises(ShaderError, match=r"not set: \['shift'\], unknown: \[\]"):
            self.pack(count=1, scale=2.0)

    @pytest.mark.parametrize("count", [-1, 2**32, 1.5])
    def test_values_that_do_not_fit_are_refused(self, count):
        with pytest.raises(ShaderError, match=r"kernel double: .*'count'"):
            self.pack(count=count, scale=1.0, shift=0)


class TestDispatch:
    @pytest.fixture
    def double(self, device, shaders, cache):
        shaders("double", DOUBLE)
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
        double({"x": Part(x, 256, 256), "result": result})
        assert result.tolist() == [127.0, 129.0, 131.0]


def test_a_shader_that_does_not_compile_is_named(device, shaders, cache):
    shaders("broken", DOUBLE.replace("params.count", "params.number"))
    x = gw.tensor([1.0])
    with pytest.raises(ShaderError, match=r"shaders/broken\.wgsl .* does not compile on"):
        cache.get("broken")
        x.tolist()  # browsers tell with the next read
    x.dispose()


@pytest.fixture(scope="module")
def modest():
    """A device with WebGPU's guaranteed limits."""
    with gw.Device(limits="default") as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(name, variant, id="-".join([name, *variant.values()]))
        for name in SHADERS
        for variant in variants(name)
    ],
)
def test_every_variant_compiles(modest, name, variant):
    """Within the limits that every adapter has: Chromium enforces them all, wgpu but some."""
    with gw.tidy():
        x = gw.tensor([1.0], device=modest)
        assert modest.kernels.get(name, variant).name == name
        x.tolist()  # browsers tell with the next read


def test_each_variant_is_compiled_once(cache):
    first = cache.get("activate", constants={"ACTIVATION": 1})
    assert cache.get("activate", constants={"ACTIVATION": 1}) is first
    assert cache.get("activate", constants={"ACTIVATION": 2}) is not first
    add, same = (cache.get("binary", {"scalar": kind}) for kind in ("f32", "f32"))
    assert add is same and add is not cache.get("binary", {"scalar": "i32"})
