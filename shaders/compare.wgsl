// Comparison of pairs of elements, with broadcasting.
//
// Formula:  result[i] = a[index of i in a] OP b[index of i in b] ? 1 : 0, i in row-major order
// Bindings: a, b with their own strides (0 along a broadcast axis), both of the type of variant
//           `scalar`: f32, i32 or u32 · result [count] u32
// Threads:  thread -> one element of the result
// Limits:   six axes (after merging: ops/strides.py)

override OPERATION: u32 = 0u; // equal, not_equal, less, less_equal, greater, greater_equal
//!include "scalar_{scalar}.wgsl"
//!include "axes.wgsl"

struct Params {
  count: u32,
  size0: u32, size1: u32, size2: u32, size3: u32, size4: u32, size5: u32,
  a0: u32, a1: u32, a2: u32, a3: u32, a4: u32, a5: u32, // strides
  b0: u32, b1: u32, b2: u32, b3: u32, b4: u32, b5: u32,
}

@group(0) @binding(0) var<storage, read> a: array<Scalar>;
@group(0) @binding(1) var<storage, read> b: array<Scalar>;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

fn compare(left: Scalar, right: Scalar) -> bool {
  switch OPERATION {
    case 0u: { return left == right; }
    case 1u: { return left != right; }
    case 2u: { return left < right; }
    case 3u: { return left <= right; }
    case 4u: { return left > right; }
    default: { return left >= right; }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let p = params;
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= p.count) { return; }
  let at = coordinates(i, Axes(p.size0, p.size1, p.size2, p.size3, p.size4, p.size5));
  let left = a[place(at, Axes(p.a0, p.a1, p.a2, p.a3, p.a4, p.a5))];
  let right = b[place(at, Axes(p.b0, p.b1, p.b2, p.b3, p.b4, p.b5))];
  result[i] = u32(compare(left, right));
}
