// A checkpoint's tensor, converted, transposed and padded into the layout kernels read.
//
// Formula:  result[n, k] = raw[source_n * stride_n + source_k * stride_k - skipped], or 0 in padding.
//           An axis is groups of `group` elements, each padded to `padded` (heads of an odd size):
//           source = place / padded * group + place % padded, valid if place % padded < group.
// Bindings: raw: words of the file (variant `source`: f32, f16, bf16) · result: words [lines, 2 * pairs]
//           (variant `packed`: f32 or f16)
// Threads:  thread -> two neighbouring k of one line n (so that f16 fills whole words)
// Limits:   fewer than 2^32 elements

//!include "source_{source}.wgsl"
//!include "packed_{packed}.wgsl"

struct Params {
  lines: u32, pairs: u32, // size of the result
  first: u32, // n of its first line (a part of a tensor that is too large for one binding)
  group_n: u32, padded_n: u32, size_n: u32, stride_n: u32,
  group_k: u32, padded_k: u32, size_k: u32, stride_k: u32,
  skipped: u32, // elements of the tensor before the first one in `raw`
}

@group(0) @binding(0) var<storage, read> raw: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

fn element(n: u32, place: u32) -> f32 {
  let k = place / params.padded_k * params.group_k + place % params.padded_k;
  if (place % params.padded_k >= params.group_k || k >= params.size_k) { return 0.0; }
  return source(n * params.stride_n + k * params.stride_k - params.skipped);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.lines * params.pairs) { return; }
  let place = params.first + i / params.pairs;
  let n = place / params.padded_n * params.group_n + place % params.padded_n;
  if (place % params.padded_n >= params.group_n || n >= params.size_n) {
    write_pair(i, 0.0, 0.0);
    return;
  }
  let k = 2u * (i % params.pairs);
  write_pair(i, element(n, k), element(n, k + 1u));
}
