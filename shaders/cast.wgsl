// Conversion of elements to another type.
//
// Formula:  result[i] = x[i] as f32, i32 (rounded towards zero), u32 or 0/1 (x[i] != 0), by TO
// Bindings: x of the type of variant `scalar`: f32, i32 or u32 · result: bits of the new type
// Threads:  thread -> one element
// Limits:   a float outside of an integer type's range becomes the nearest f32 in it

override TO: u32 = 0u; // f32, i32, u32, bool
//!include "scalar_{scalar}.wgsl"

struct Params { count: u32, }

@group(0) @binding(0) var<storage, read> x: array<Scalar>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let value = x[i];
  switch TO {
    case 0u: { result[i] = bitcast<u32>(f32(value)); }
    case 1u: { result[i] = bitcast<u32>(i32(value)); }
    case 2u: { result[i] = u32(value); }
    default: { result[i] = u32(value != Scalar(0)); }
  }
}
