// Steps of linear_gemv.wgsl through q4 weights (weight_q4.wgsl), a block at a time: one 16-byte
// load and one scale for 32. Step i holds elements 32i .. 32i+31.
//
// Provides: Step, GROUPS, weights, step_at, group_of
// Needs:    nothing

struct Step { words: vec4<u32>, scale: f32, }
const GROUPS: u32 = 4u;

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn step_at(i: u32) -> Step {
  let unit = i / 8u * 9u;
  let in_unit = i % 8u;
  let scales = unpack2x16float(weights[unit][in_unit / 2u]);
  return Step(weights[unit + 1u + in_unit], scales[in_unit % 2u] * -0.125);
}

fn group_of(step: Step, g: u32) -> mat2x4<f32> {
  let w = step.words[g];
  let zero = -8.0 * step.scale; // so that scale and offset are one multiply-add
  return mat2x4<f32>(vec4<f32>(unpack4xU8(w & 0x0f0f0f0fu)) * step.scale + zero,
                     vec4<f32>(unpack4xU8((w >> 4u) & 0x0f0f0f0fu)) * step.scale + zero);
}
