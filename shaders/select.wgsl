// Elements of two arrays, chosen by a condition, with broadcasting.
//
// Formula:  result[i] = condition != 0 ? a : b, each at the index of i, i in row-major order
// Bindings: condition u32, a, b: 32-bit elements of any type, each with its own strides (0 along a
//           broadcast axis) · result [count] of a's type
// Threads:  thread -> one element of the result
// Limits:   six axes (after merging: ops/strides.py)

//!include "axes.wgsl"

struct Params {
  count: u32,
  size0: u32, size1: u32, size2: u32, size3: u32, size4: u32, size5: u32,
  c0: u32, c1: u32, c2: u32, c3: u32, c4: u32, c5: u32, // strides
  a0: u32, a1: u32, a2: u32, a3: u32, a4: u32, a5: u32,
  b0: u32, b1: u32, b2: u32, b3: u32, b4: u32, b5: u32,
}

@group(0) @binding(0) var<storage, read> condition: array<u32>;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> result: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let p = params;
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= p.count) { return; }
  let at = coordinates(i, Axes(p.size0, p.size1, p.size2, p.size3, p.size4, p.size5));
  if (condition[place(at, Axes(p.c0, p.c1, p.c2, p.c3, p.c4, p.c5))] != 0u) {
    result[i] = a[place(at, Axes(p.a0, p.a1, p.a2, p.a3, p.a4, p.a5))];
  } else {
    result[i] = b[place(at, Axes(p.b0, p.b1, p.b2, p.b3, p.b4, p.b5))];
  }
}
