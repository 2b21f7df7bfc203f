// An element of a checkpoint's tensor by its place in the layout that kernels read; the caller also
// includes `source_{source}.wgsl`.
//
// element(n, k) = raw[source_n * stride_n + source_k * stride_k - skipped], or 0 in padding.
// An axis is groups of `group` elements, each padded to `padded` (heads of an odd size):
// source = place / padded * group + place % padded, valid if place % padded < group.

struct Params {
  lines: u32, depth: u32, // of what this call writes
  first: u32, // n of its first line (of a part, or a piece of one)
  before: u32, // lines of `result` before that
  group_n: u32, padded_n: u32, size_n: u32, stride_n: u32,
  group_k: u32, padded_k: u32, size_k: u32, stride_k: u32,
  skipped: u32, // elements of the tensor before the first one in `raw`
}

@group(0) @binding(0) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

fn element(place_n: u32, place_k: u32) -> f32 {
  let n = place_n / params.padded_n * params.group_n + place_n % params.padded_n;
  let k = place_k / params.padded_k * params.group_k + place_k % params.padded_k;
  if (place_n % params.padded_n >= params.group_n || n >= params.size_n) { return 0.0; }
  if (place_k % params.padded_k >= params.group_k || k >= params.size_k) { return 0.0; }
  return source(n * params.stride_n + k * params.stride_k - params.skipped);
}
