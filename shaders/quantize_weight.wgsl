// A checkpoint's tensor, transposed and padded as by load_weight.wgsl, rounded to q8 or q4.
//
// Formula:  the elements of the result, row after row, are cut into blocks of 32, across rows if
//           in_features is not a multiple of 32; scale = the block's value of largest magnitude m,
//           as f16; an element is stored as round(127 x / |m|) (q8), or 8 + round(-8 x / m), at
//           most 15 (q4: m itself becomes -8)
// Bindings: raw: words of the file (variant `source`: f32, f16, bf16) · result: words, units of
//           eight blocks (variant `packed`: q8 or q4), [rows_before + out_features, in_features];
//           units are whole: zeros follow the last element
// Threads:  thread -> two blocks (whose scales share a word)
// Limits:   fewer than 2^32 elements; rows_before * in_features a multiple of 256

//!include "source_{source}.wgsl"
//!include "rounded_{packed}.wgsl"
//!include "checkpoint_element.wgsl"

@group(0) @binding(1) var<storage, read_write> result: array<u32>;

var<private> values: array<f32, 32>; // of the current block

// Fetch block number `block` of this call and return its value of largest magnitude.
fn fetch(block: u32) -> f32 {
  var largest = 0u; // its bits: a NaN is larger than any number, and so is kept
  var found = 0.0;
  for (var i = 0u; i < 32u; i++) {
    let place = block * 32u + i;
    var value = 0.0;
    if (place < params.out_features * params.in_features) {
      value = element(params.first_row + place / params.in_features, place % params.in_features);
    }
    values[i] = value;
    let size = bitcast<u32>(value) & 0x7fffffffu;
    if (size > largest) {
      largest = size;
      found = value;
    }
  }
  return found;
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let pair = (group.y * groups.x + group.x) * 64u + thread;
  let units = (params.out_features * params.in_features + 255u) / 256u;
  if (pair >= units * 4u) { return; }
  let at = pair + params.rows_before * params.in_features / 64u; // pairs of the whole result
  let first = pack2x16float(vec2<f32>(kept(fetch(2u * pair)), 0.0));
  write_block(2u * at, unpack2x16float(first).x);
  let second = pack2x16float(vec2<f32>(0.0, kept(fetch(2u * pair + 1u))));
  write_block(2u * at + 1u, unpack2x16float(second).y);
  result[at / 4u * UNIT_WORDS + at % 4u] = first | second;
}
