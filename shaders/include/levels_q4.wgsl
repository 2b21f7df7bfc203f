// Levels of q4 weights (weight_q4.wgsl), without their scales: whole numbers from -8 to 7.
//
// Provides: weights, first_group_of, levels8, scale_of
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<u32>;

// Index of the first group of eight of block i; the others follow.
fn first_group_of(i: u32) -> u32 { return i / 8u * 36u + 4u + i % 8u * 4u; }

fn levels8(group: u32) -> mat2x4<f32> {
  let w = weights[group];
  return mat2x4<f32>(vec4<f32>(unpack4xU8(w & 0x0f0f0f0fu)) - 8.0,
                     vec4<f32>(unpack4xU8((w >> 4u) & 0x0f0f0f0fu)) - 8.0);
}

fn scale_of(i: u32) -> f32 {
  let halves = weights[i / 8u * 36u + i % 8u / 2u] >> (16u * (i % 2u));
  return unpack2x16float(halves).x * -0.125;
}
