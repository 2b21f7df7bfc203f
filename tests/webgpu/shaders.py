"""A shader of the tests' own, and a way to write folders of them."""

from __future__ import annotations

from pathlib import Path

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


def write_shader(folder: Path, name: str, source: str) -> None:
    """Write ``source`` as ``<name>.wgsl`` of ``folder``."""
    path = folder / f"{name}.wgsl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
