// Activations as int8 in blocks of 32 with a scale each, after the LayerNorm if there is one
// (NORM): the first operand of W8A8 products. One token or many are rounded by this code, in this
// order: equal to the bit.
//
// Provides: Block, norm_of, rounded_block
// Needs:    NORM, THREADS, mean_and_inverse, moments8, moments_of_all, read8, scale_by_gain,
//           shift_of, subtract_shift, params.in_features8

struct Block {
  low: vec4<u32>, // elements 0 .. 15 as int8, four in a word
  high: vec4<u32>, // 16 .. 31
  scale: f32, // of one step: max |x| / 127
}

// The token's mean and 1 / d as in input_plain.wgsl; every thread must call.
fn norm_of(m: u32, thread: u32) -> vec2<f32> {
  let shift = shift_of(m);
  var own = vec2<f32>(0.0);
  for (var k = thread; k < params.in_features8; k += THREADS) {
    own += moments8(subtract_shift(read8(m, k), shift, k));
  }
  return vec2<f32>(shift, 0.0) + mean_and_inverse(moments_of_all(own, thread));
}

fn packed(x: vec4<f32>) -> u32 { return pack4xI8(vec4<i32>(round(x))); }

fn rounded_block(m: u32, block: u32, norm: vec2<f32>) -> Block {
  var x8: array<mat2x4<f32>, 4>;
  var largest = vec4<u32>(0u); // as bits: a NaN is larger than any number, and so is kept
  for (var i = 0u; i < 4u; i++) {
    let k = 4u * block + i;
    x8[i] = read8(m, k);
    if (NORM) { // the gain is 0 in the padding
      x8[i] = scale_by_gain(mat2x4<f32>(x8[i][0] - norm.x, x8[i][1] - norm.x), k) * norm.y;
    }
    let low = bitcast<vec4<u32>>(abs(x8[i][0]));
    let high = bitcast<vec4<u32>>(abs(x8[i][1]));
    largest = max(largest, max(low, high));
  }
  let most = bitcast<f32>(max(max(largest.x, largest.y), max(largest.z, largest.w)));
  let factor = select(0.0, 127.0 / most, most > 1e-30);
  let a = vec4<u32>(packed(x8[0][0] * factor), packed(x8[0][1] * factor),
                    packed(x8[1][0] * factor), packed(x8[1][1] * factor));
  let b = vec4<u32>(packed(x8[2][0] * factor), packed(x8[2][1] * factor),
                    packed(x8[3][0] * factor), packed(x8[3][1] * factor));
  return Block(a, b, most / 127.0);
}
