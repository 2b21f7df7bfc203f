// Product of 32 int8 activations with a stored block of 32 q8 weights (weight_q8.wgsl).
//
// Provides: weights, NEEDS_SUM, block_product
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

const NEEDS_SUM: bool = false; // block_product needs the sum of the activations

// `i`: number of the block; `low`, `high`: activations, four in a word; `sum`: of the activations.
fn block_product(i: u32, low: vec4<u32>, high: vec4<u32>, sum: i32) -> f32 {
  let unit = i / 8u * 17u;
  let in_unit = i % 8u;
  let halves = weights[unit][in_unit / 2u] >> (16u * (in_unit % 2u));
  // Only one half is unpacked, as SwiftShader does that in software.
  let scale = unpack2x16float(halves).x * (1.0 / 127.0);
  let a = weights[unit + 1u + 2u * in_unit];
  let b = weights[unit + 2u + 2u * in_unit];
  let dots = dot4I8Packed(a.x, low.x) + dot4I8Packed(a.y, low.y)
           + dot4I8Packed(a.z, low.z) + dot4I8Packed(a.w, low.w)
           + dot4I8Packed(b.x, high.x) + dot4I8Packed(b.y, high.y)
           + dot4I8Packed(b.z, high.z) + dot4I8Packed(b.w, high.w);
  return f32(dots) * scale;
}
