// Sum, maximum or minimum of some of the elements along one axis.
//
// Formula:  result[o, t, n] = OP over k of x[o, t + k * parts, n], with t + k * parts < columns; a
//           maximum or minimum of f32 with NaN is NaN, as in NumPy
// Bindings: x [outer, columns, inner] · result [outer, parts, inner]; both of the type of variant
//           `scalar`: f32, i32 (sums wrap) or u32
// Threads:  thread -> one element of the result; threads of adjacent t read adjacent elements
// Limits:   columns >= parts >= 1, so that each thread has an element

override OPERATION: u32 = 0u; // sum, max, min
override IS_FLOAT: bool = false;
//!include "scalar_{scalar}.wgsl"

struct Params { count: u32, columns: u32, parts: u32, inner: u32, }

@group(0) @binding(0) var<storage, read> x: array<Scalar>;
@group(0) @binding(1) var<storage, read_write> result: array<Scalar>;
@group(0) @binding(2) var<uniform> params: Params;

// By its bits: compilers may assume that no number is NaN.
fn is_nan(value: Scalar) -> bool {
  return IS_FLOAT && (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let p = params;
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= p.count) { return; }
  let n = i % p.inner;
  let t = i / p.inner % p.parts;
  let first = i / p.inner / p.parts * p.columns;

  var found = x[(first + t) * p.inner + n];
  for (var c = t + p.parts; c < p.columns; c += p.parts) {
    let value = x[(first + c) * p.inner + n];
    if (OPERATION == 0u) {
      found += value;
    } else if (is_nan(value)) {
      found = value;
    } else if (!is_nan(found)) {
      if (OPERATION == 1u) { found = max(found, value); } else { found = min(found, value); }
    }
  }
  result[i] = found;
}
