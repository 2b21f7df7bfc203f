// Steps of linear_gemv.wgsl through q8 weights (weight_q8.wgsl), half a block at a time: one
// 16-byte load and one scale for sixteen. Step i holds elements 16i .. 16i+15.
//
// Provides: Step, GROUPS, weights, step_at, group_of
// Needs:    nothing

struct Step { words: vec4<u32>, scale: f32, }
const GROUPS: u32 = 2u;

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn step_at(i: u32) -> Step {
  let unit = i / 16u * 17u;
  let in_unit = i % 16u;
  let scales = unpack2x16float(weights[unit][in_unit / 4u]);
  return Step(weights[unit + 1u + in_unit], scales[in_unit / 2u % 2u] * (1.0 / 127.0));
}

fn group_of(step: Step, g: u32) -> mat2x4<f32> {
  return mat2x4<f32>(vec4<f32>(unpack4xI8(step.words[2u * g])) * step.scale,
                     vec4<f32>(unpack4xI8(step.words[2u * g + 1u])) * step.scale);
}
