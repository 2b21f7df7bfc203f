// Weights stored as f32, eight at a time: group i holds elements 8i .. 8i+7.
//
// Provides: weights, weights8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;

fn weights8(i: u32) -> mat2x4<f32> {
  return mat2x4<f32>(weights[2u * i], weights[2u * i + 1u]);
}
