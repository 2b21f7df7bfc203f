// Weights stored as 0 .. 15, which means -8 .. 7, in blocks of 32 with an f16 scale each, eight at
// a time: group i holds elements 8i .. 8i+7. A unit of eight blocks is eight scales, then the
// elements (rounded_q4.wgsl).
//
// Provides: weights, weights8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<u32>;

fn weights8(i: u32) -> mat2x4<f32> {
  let unit = i / 32u * 36u;
  let in_unit = i % 32u;
  let w = weights[unit + 4u + in_unit];
  let scale = unpack2x16float(weights[unit + in_unit / 8u])[in_unit / 4u % 2u] * -0.125;
  let low = vec4<f32>(unpack4xU8(w & 0x0f0f0f0fu)) - 8.0;
  let high = vec4<f32>(unpack4xU8((w >> 4u) & 0x0f0f0f0fu)) - 8.0;
  return mat2x4<f32>(low * scale, high * scale);
}
