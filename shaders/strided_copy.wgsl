// Copies a block of elements between two layouts: slices, transposes, concatenation.
//
// Formula:  result[to_start + index of i by `to`] = x[from_start + index of i by `from`],
//           i in row-major order of `size`
// Bindings: x, result: 32-bit elements of any type (bits are copied)
// Threads:  thread -> one element of the block
// Limits:   six axes (after merging: ops/strides.py)

//!include "axes.wgsl"

struct Params {
  count: u32,
  size0: u32, size1: u32, size2: u32, size3: u32, size4: u32, size5: u32,
  from_start: u32,
  from0: u32, from1: u32, from2: u32, from3: u32, from4: u32, from5: u32, // strides
  to_start: u32,
  to0: u32, to1: u32, to2: u32, to3: u32, to4: u32, to5: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let p = params;
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= p.count) { return; }
  let at = coordinates(i, Axes(p.size0, p.size1, p.size2, p.size3, p.size4, p.size5));
  let source = place(at, Axes(p.from0, p.from1, p.from2, p.from3, p.from4, p.from5));
  let goal = place(at, Axes(p.to0, p.to1, p.to2, p.to3, p.to4, p.to5));
  result[p.to_start + goal] = x[p.from_start + source];
}
