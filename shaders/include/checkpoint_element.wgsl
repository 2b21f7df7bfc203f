// Element of a checkpoint's tensor by its place (n, k) in the layout that the kernels read.
//
// Provides: raw, params, element
// Needs:    source
//
// element(n, k) = raw[source_n * out_stride + source_k * in_stride - skipped], or 0 in padding.
// An axis consists of groups of `group` elements, each padded to `padded` (heads of an odd size):
// source = place / padded * group + place % padded, valid if place % padded < group.

struct Params {
  out_features: u32, in_features: u32, // of the rows that this call writes
  first_row: u32, // n of the first of them
  rows_before: u32, // rows of `result` before it
  out_group: u32, out_padded: u32, out_size: u32, out_stride: u32,
  in_group: u32, in_padded: u32, in_size: u32, in_stride: u32,
  skipped: u32, // elements of the tensor before the first one in `raw`
}

@group(0) @binding(0) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

fn element(n: u32, k: u32) -> f32 {
  let source_n = n / params.out_padded * params.out_group + n % params.out_padded;
  let source_k = k / params.in_padded * params.in_group + k % params.in_padded;
  if (n % params.out_padded >= params.out_group || source_n >= params.out_size) { return 0.0; }
  if (k % params.in_padded >= params.in_group || source_k >= params.in_size) { return 0.0; }
  return source(source_n * params.out_stride + source_k * params.in_stride - params.skipped);
}
