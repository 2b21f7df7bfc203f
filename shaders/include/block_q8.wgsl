// The product of 32 int8 activations with stored block number i of 32 q8 weights (weight_q8.wgsl).

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

const OFFSET: bool = false; // whether the activations' sum is needed

fn product(i: u32, low: vec4<u32>, high: vec4<u32>, sum: i32) -> f32 {
  let unit = i / 8u * 17u;
  let in_unit = i % 8u;
  let halves = weights[unit][in_unit / 2u] >> (16u * (in_unit % 2u));
  let scale = unpack2x16float(halves).x * (1.0 / 127.0); // one half: SwiftShader unpacks in software
  let a = weights[unit + 1u + 2u * in_unit];
  let b = weights[unit + 2u + 2u * in_unit];
  let dots = dot4I8Packed(a.x, low.x) + dot4I8Packed(a.y, low.y)
           + dot4I8Packed(a.z, low.z) + dot4I8Packed(a.w, low.w)
           + dot4I8Packed(b.x, high.x) + dot4I8Packed(b.y, high.y)
           + dot4I8Packed(b.z, high.z) + dot4I8Packed(b.w, high.w);
  return f32(dots) * scale;
}
