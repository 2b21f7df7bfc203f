// Product of 32 int8 activations with a stored block of 32 q4 weights (weight_q4.wgsl). The sum of
// the activations corrects for the 8 by which stored levels are too large.
//
// Provides: weights, NEEDS_SUM, block_product
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

const NEEDS_SUM: bool = true; // block_product needs the sum of the activations

// `i`: number of the block; `low`, `high`: activations, four in a word; `sum`: of the activations.
fn block_product(i: u32, low: vec4<u32>, high: vec4<u32>, sum: i32) -> f32 {
  let unit = i / 8u * 9u;
  let in_unit = i % 8u;
  let halves = weights[unit][in_unit / 2u] >> (16u * (in_unit % 2u));
  // Only one half is unpacked, as SwiftShader does that in software.
  let scale = unpack2x16float(halves).x * -0.125;
  let w = weights[unit + 1u + in_unit];
  let a = w & vec4<u32>(0x0f0f0f0fu); // elements 0 .. 3, 8 .. 11, 16 .. 19, 24 .. 27
  let b = (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
  let dots = dot4I8Packed(a.x, low.x) + dot4I8Packed(b.x, low.y)
           + dot4I8Packed(a.y, low.z) + dot4I8Packed(b.y, low.w)
           + dot4I8Packed(a.z, high.x) + dot4I8Packed(b.z, high.y)
           + dot4I8Packed(a.w, high.z) + dot4I8Packed(b.w, high.w);
  return f32(dots - 8 * sum) * scale;
}
