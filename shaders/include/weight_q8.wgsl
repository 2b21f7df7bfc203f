// Weights stored as int8 in blocks of 32 with an f16 scale each, eight at a time: group i holds
// elements 8i .. 8i+7. A unit of eight blocks is eight scales, then the elements (rounded_q8.wgsl).
//
// Provides: weights, weights8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;

fn weights8(i: u32) -> mat2x4<f32> {
  let unit = i / 32u * 34u;
  let in_unit = i % 32u;
  let w = weights[unit + 2u + in_unit];
  let scales = unpack2x16float(weights[unit + in_unit / 16u][in_unit / 8u % 2u]);
  let scale = scales[in_unit / 4u % 2u] * (1.0 / 127.0);
  return mat2x4<f32>(vec4<f32>(unpack4xI8(w.x)) * scale, vec4<f32>(unpack4xI8(w.y)) * scale);
}
