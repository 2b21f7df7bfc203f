// Products of int8 activations with half a stored block of q8 weights (weight_q8.wgsl), by masks.
// The weights of the three lower bytes of a word are 128 too large.
//
// Provides: weights, EXCESS_EVEN, EXCESS_ODD, half_product, scale_of
// Needs:    bytes, sum_of_places

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

// What weights are too large by, of even and odd words of activations.
const EXCESS_EVEN: vec4<f32> = vec4<f32>(128.0, 128.0, 128.0, 0.0);
const EXCESS_ODD: vec4<f32> = EXCESS_EVEN;

// `i`: number of the block; `half`: 0 or 1; `x`: its activations, byte k of a word times 256^k.
fn half_product(i: u32, half: u32, x: mat4x4<f32>) -> f32 {
  let w = weights[i / 8u * 17u + 1u + 2u * (i % 8u) + half] ^ vec4<u32>(0x00808080u);
  return sum_of_places(bytes(w.x) * x[0] + bytes(w.y) * x[1]
                     + bytes(w.z) * x[2] + bytes(w.w) * x[3]);
}

fn scale_of(i: u32) -> f32 {
  let both = weights[i / 8u * 17u][i % 8u / 2u];
  return unpack2x16float(select(both, both >> 16u, i % 2u == 1u)).x * (1.0 / 127.0);
}
