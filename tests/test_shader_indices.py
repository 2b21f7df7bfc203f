"""Indices that are no constants, in shaders: some compilers reject them, others then use memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SHADERS = Path(__file__).parent.parent / "shaders"
FILES = sorted(SHADERS.rglob("*.wgsl"))

NAME = r"[A-Za-z_]\w*"
VARIABLE = re.compile(rf"\bvar\s+({NAME})\s*(?::\s*([a-z0-9]+)|=\s*([a-z0-9]+))")
WRITE = re.compile(rf"(?<![\w.])({NAME})((?:\[[^\[\]]+\])+)\s*[-+*/|&^]?=(?!=)")
CONSTANT = re.compile(r"\d+u?")
# Arrays of a thread, their names for a type, and what is made of another variable or parameter.
ALIAS = re.compile(rf"\balias\s+({NAME})\s*=\s*array<")
PRIVATE = re.compile(rf"\bvar<private>\s+({NAME})\s*:\s*([A-Za-z_]\w*)")
LOCAL = re.compile(rf"\b(?:var|let)\s+({NAME})\s*(?::\s*({NAME}))?(?:\s*=\s*({NAME}))?")
PARAMETER = re.compile(rf"[(,]\s*({NAME})\s*:\s*({NAME})")
INDEX = r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]"
ELEMENT = re.compile(rf"(?<![\w.])({NAME})((?:{INDEX})+)")

# The arrays of a thread that a variable indexes, and why.
CPU = "a kernel of CPU adapters, where the memory of a thread is a cache"
INDEXED = {
    ("attention_cpu.wgsl", "sum"): CPU,
    ("attention_lanes_cpu.wgsl", "q"): CPU,
    ("attention_lanes_cpu.wgsl", "sum"): CPU,
    ("linear_gemm_cpu.wgsl", "first"): CPU,
    ("linear_gemm_cpu.wgsl", "second"): CPU,
    ("linear_gemm_cpu.wgsl", "sums"): CPU,
    ("linear_w8a8_gemm_cpu.wgsl", "sums"): CPU,
    ("top_k_cpu.wgsl", "best_index"): CPU,
    ("top_k_cpu.wgsl", "best_rank"): CPU,
    ("include/lane_quads.wgsl", "sums"): CPU,
    ("include/quantize_activations.wgsl", "x8"): CPU,
    ("quantize_weight.wgsl", "values"): "once, when a model is loaded",
    ("reorder_cache.wgsl", "old"): "the index is a result: which beam a row goes on from",
    ("include/axes.wgsl", "at"): "six axes, in kernels that no step of a model takes",
    ("include/axes.wgsl", "size"): "six axes, in kernels that no step of a model takes",
    ("include/axes.wgsl", "stride"): "six axes, in kernels that no step of a model takes",
}


def code(path: Path) -> str:
    return re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))


def component_writes(text: str) -> list[str]:
    """Writes to a component of a vector or a column of a matrix by an index that is no constant."""
    kinds = {name: typed or made for name, typed, made in VARIABLE.findall(text)}
    found = []
    for written in WRITE.finditer(text):
        name, indices = written[1], re.findall(r"\[([^\]]+)\]", written[2])
        if kinds.get(name) == "array":
            indices = indices[1:]  # elements of an array can be addressed
        elif not (kinds.get(name) or "").startswith(("vec", "mat")):
            continue
        if not all(CONSTANT.fullmatch(index.strip()) for index in indices):
            found.append(written[0].strip())
    return found


def test_writes_to_components_are_found():
    text = "var v = vec4<f32>(0.0); var m: mat4x4<f32>; var a: array<vec4<f32>, 8>;"
    good = "v[1] = 0.0; m[0u] += v; a[i] = v; a[i][2] = 0.0; buffer[i] = v; x = v[i]; v[i] == 0.0;"
    bad = ["v[i] =", "m[i] *=", "m[0][j] =", "a[0][k] +="]
    assert component_writes(text + good) == []
    assert component_writes(text + "".join(f"{each} y;" for each in bad)) == bad


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_component_is_written_by_a_loop_index(path):
    """Windows' FXC, behind DX12, rejects that as an l-value where it does not unroll the loop."""
    assert component_writes(code(path)) == []


def indexed_arrays(text: str, aliases: set[str]) -> set[str]:
    """Names of a thread's own arrays with an index that is no constant, here or in other files.

    ``aliases``: names of array types. All of ``var<private>`` count: they are there to be indexed.
    """
    types = {"array"} | aliases
    private = {name for name, kind in PRIVATE.findall(text) if kind in types}
    arrays = {name for name, kind in PARAMETER.findall(text) if kind in types}
    for name, kind, made in LOCAL.findall(text):
        if kind in types or made in types or (not kind and made in arrays):
            arrays.add(name)
    return private | {
        name
        for name, indices in ELEMENT.findall(text)
        if name in arrays
        and not all(CONSTANT.fullmatch(one[1:-1].strip()) for one in re.findall(INDEX, indices))
    }


def test_indexed_arrays_are_found():
    text = """
        var<workgroup> shared_sum: array<f32, 8>;
        @group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
        fn place(first: u32, strides: Six) -> u32 { var step = strides; return step[first]; }
        fn f() {
          var sum: array<vec4<f32>, 8>;
          var parts: array<mat4x4<f32>, 2>;
          var made = array<f32, 2>(0.0, 1.0);
          let fixed = array<f32, 2>(0.0, 1.0);
          let four = x[i];
          sum[0] = x[i]; shared_sum[i] = fixed[1u]; own.sum[i] = four[j]; parts[0][1u] = four;
    """
    assert indexed_arrays(text, {"Six"}) == {"step"}
    text += "sum[m] += 1.0; made[list[i]] = 0.0; x[i] = parts[0][k]; var<private> ours: Six;"
    assert indexed_arrays(text, {"Six"}) == {"step", "sum", "made", "parts", "ours"}


def test_arrays_of_a_thread_are_indexed_by_constants():
    """A compiler that keeps the loop keeps such an array in memory, or selects each element.

    naga bounds all loops, so that compilers unroll fewer of them; Windows' FXC unrolls few.
    """
    texts = {path.relative_to(SHADERS).as_posix(): code(path) for path in FILES}
    aliases = set(ALIAS.findall("".join(texts.values())))
    found = {(file, name) for file in texts for name in indexed_arrays(texts[file], aliases)}
    assert found == INDEXED.keys()
