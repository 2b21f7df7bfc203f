// A checkpoint's tensor, converted, transposed and padded into the layout that the kernels read.
//
// Formula:  result[rows_before + n, k] = element(first_row + n, k), see checkpoint_element.wgsl
// Bindings: raw: words of the file (variant `source`: f32, f16, bf16) · result: words
//           [rows_before + out_features, in_features] (variant `packed`: f32 or f16)
// Threads:  thread -> two neighbouring k of one row n (so that f16 fills whole words)
// Limits:   fewer than 2^32 elements; in_features even

//!include "source_{source}.wgsl"
//!include "packed_{packed}.wgsl"
//!include "checkpoint_element.wgsl"

@group(0) @binding(1) var<storage, read_write> result: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  let pairs = params.in_features / 2u;
  if (i >= params.out_features * pairs) { return; }
  let n = params.first_row + i / pairs;
  let k = 2u * (i % pairs);
  write_pair(params.rows_before * pairs + i, element(n, k), element(n, k + 1u));
}
