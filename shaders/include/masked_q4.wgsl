// Products of int8 activations with half a stored block of q4 weights (weight_q4.wgsl), by masks.
// The weights are 8 too large, but for the highest of a word, which is read with its sign.
//
// Provides: weights, EXCESS_EVEN, EXCESS_ODD, half_product, scale_of
// Needs:    masked, sum_of_places

@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;

// What weights are too large by, of even and odd words of activations.
const EXCESS_EVEN: vec4<f32> = vec4<f32>(8.0);
const EXCESS_ODD: vec4<f32> = vec4<f32>(8.0, 8.0, 8.0, 0.0);

fn low_halves(word: u32) -> vec4<f32> {
  return masked(word, vec4<u32>(0x0fu, 0x0f00u, 0x0f0000u, 0x0f000000u));
}

// Times 16.
fn high_halves(word: u32) -> vec4<f32> {
  return masked(word, vec4<u32>(0xf0u, 0xf000u, 0xf00000u, 0xf0000000u));
}

// `i`: number of the block; `half`: 0 or 1; `x`: its activations, byte k of a word times 256^k.
fn half_product(i: u32, half: u32, x: mat4x4<f32>) -> f32 {
  let w = weights[i / 8u * 18u + 2u + 2u * (i % 8u) + half];
  let v = w ^ vec2<u32>(0x80000000u);
  return sum_of_places(low_halves(w.x) * x[0] + low_halves(w.y) * x[2]
                     + (high_halves(v.x) * x[1] + high_halves(v.y) * x[3]) * 0.0625);
}

fn scale_of(i: u32) -> f32 {
  let both = weights[i / 8u * 18u + i % 8u / 4u][i % 4u / 2u];
  return unpack2x16float(select(both, both >> 16u, i % 2u == 1u)).x * -0.125;
}
