"""Reading WGSL: signatures, includes, packed parameters. Needs no GPU."""

from __future__ import annotations

import re
import struct

import pytest

from gpt2_wgpu.errors import ShaderError
from gpt2_wgpu.webgpu import pipelines
from tests.webgpu.shaders import DOUBLE, write_shader

SHADERS = sorted(path.stem for path in pipelines.shader_directory().glob("*.wgsl"))


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


def test_only_kernels_for_cpu_adapters_use_subgroups():
    """docs/decisions/no-subgroups.md; naga rejects the extension's line."""
    paths = pipelines.shader_directory().rglob("*.wgsl")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    assert not [name for name, text in texts.items() if re.search("^enable ", text, re.MULTILINE)]
    uses = re.compile(r"subgroup(_|[A-Z])|lane_quads\.wgsl")
    assert sorted(name for name, text in texts.items() if uses.search(text)) == [
        "lane_quads",
        "linear_gemm_subgroups_cpu",
        "linear_w8a8_gemm_subgroups_cpu",
    ]


def test_uniforms_of_sample_are_widths_of_rows():
    """Mesa 22.3's llvmpipe inserts those that decide conditions, and compiles for each dispatch."""
    source = re.sub("//[^\n]*", "", pipelines.load_source("sample"))
    assert source.count("row * params.") > 5
    others = re.findall(r"(?<!row \* )\bparams\.[^{;]*", source)
    # This condition depends on an option, too, which is in a storage buffer.
    assert others == ["params.maxima_and_counts_width > chunks_of(candidates)) "]


class TestIncludes:
    def test_are_pasted_by_variant_and_nest(self, tmp_path):
        write_shader(tmp_path, "main", '// top\n//!include "load_{kind}.wgsl"\nfn main() {}\n')
        write_shader(tmp_path, "include/load_a", '//!include "deep.wgsl" (why)\nfn load() {}')
        write_shader(tmp_path, "include/deep", "const DEEP = 1;")
        source = pipelines.load_source("main", (("kind", "a"),), tmp_path)
        assert source == "// top\nconst DEEP = 1;\nfn load() {}\nfn main() {}\n"

    def test_an_unset_variant_is_named(self, tmp_path):
        write_shader(tmp_path, "main", '//!include "load_{kind}.wgsl"\n')
        with pytest.raises(ShaderError, match="kernel main: the variant must set 'kind'"):
            pipelines.load_source("main", (), tmp_path)

    def test_absent_files_are_named(self, tmp_path):
        with pytest.raises(ShaderError, match=r"kernel nothing: cannot read .*nothing\.wgsl"):
            pipelines.load_source("nothing", (), tmp_path)
        write_shader(tmp_path, "main", '//!include "gone.wgsl"\n')
        with pytest.raises(ShaderError, match=r"kernel main: cannot read .*include.gone\.wgsl"):
            pipelines.load_source("main", (), tmp_path)


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
