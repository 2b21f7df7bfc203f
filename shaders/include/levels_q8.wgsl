// Levels of q8 weights (weight_q8.wgsl), without their scales: whole numbers from -127 to 127.
//
// Provides: weights, first_group_of, levels8, scale_of
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;

// Index of the first group of eight of block i; the others follow.
fn first_group_of(i: u32) -> u32 { return i / 8u * 34u + 2u + i % 8u * 4u; }

fn levels8(group: u32) -> mat2x4<f32> {
  let w = weights[group];
  return mat2x4<f32>(vec4<f32>(unpack4xI8(w.x)), vec4<f32>(unpack4xI8(w.y)));
}

fn scale_of(i: u32) -> f32 {
  let halves = weights[i / 8u * 34u + i % 8u / 4u][i % 4u / 2u] >> (16u * (i % 2u));
  return unpack2x16float(halves).x * (1.0 / 127.0);
}
