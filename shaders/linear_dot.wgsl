// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one row, in integers: x is rounded to int8 in
// blocks of 32 on the way, W is stored in blocks (CPU adapters, where loads and instructions limit).
//
// Formula:  sum[r, c] = Σ_blocks scale_x * scale_w * Σ_32 q_x * q_w, the inner sum in i32, with
//           scale_x = max |x| / 127 of a block and q_x = round(x / scale_x); then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 (input_plain.wgsl; with NORM each workgroup normalises it, since
//           what is rounded has to be the outcome) · weights [columns, 8 * depth8] (variant `weight`:
//           q8, q4) · the rest by variant `store`: store_plain.wgsl, store_qkv.wgsl or
//           store_logits.wgsl
// Threads:  8 threads share 32 columns: each rounds every eighth block of x and multiplies it with all
//           32 lines, so that a line is read from front to back, and one barrier is enough;
//           workgroup (x) -> 32 columns, (y) -> row
// Limits:   columns <= 32 * 65,535, rows <= 65,535, depth a multiple of 32; linear_block.wgsl is
//           better from two rows on, where loads are shared

const LANES: u32 = 8u;
const COLUMNS: u32 = 32u;
//!include "block_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"

struct Block { // 32 elements of x as int8
  low: vec4<u32>,
  high: vec4<u32>,
  scale: f32,
  sum: i32,
}
struct Moments { mean: f32, deviation: f32, } // of a row; 1 / d as in input_plain.wgsl

var<workgroup> partial: array<f32, LANES * COLUMNS>; // [column, lane]
var<workgroup> moments: array<vec2<f32>, LANES>;

// Mean of the row and 1 / its deviation; every thread must call.
fn moments_of(row: u32, lane: u32) -> Moments {
  let shift = shift_of(row);
  var own = vec2<f32>(0.0);
  for (var k = lane; k < params.depth8; k += LANES) {
    let a = shifted(read8(row, k), shift, k);
    own += vec2<f32>(dot(a[0] + a[1], vec4<f32>(1.0)), dot(a[0], a[0]) + dot(a[1], a[1]));
  }
  moments[lane] = own;
  workgroupBarrier();
  var all = vec2<f32>(0.0);
  for (var i = 0u; i < LANES; i++) { all += moments[i]; }
  let mean = all.x / f32(params.width);
  let variance = max(all.y / f32(params.width) - mean * mean, 0.0);
  return Moments(shift + mean, inverseSqrt(variance + params.epsilon));
}

fn packed(x: vec4<f32>) -> u32 { return pack4xI8(vec4<i32>(round(x))); }

fn total(four: vec4<u32>) -> i32 {
  return dot4I8Packed(four.x, 0x01010101u) + dot4I8Packed(four.y, 0x01010101u)
       + dot4I8Packed(four.z, 0x01010101u) + dot4I8Packed(four.w, 0x01010101u);
}

fn block_of(row: u32, block: u32, about: Moments) -> Block {
  var x8: array<mat2x4<f32>, 4>;
  var largest = vec4<u32>(0u); // as bits: a NaN is larger than any number, and so is not lost
  for (var i = 0u; i < 4u; i++) {
    let k = 4u * block + i;
    x8[i] = read8(row, k);
    if (NORM) { // the gain is 0 in the padding
      x8[i] = gained(mat2x4<f32>(x8[i][0] - about.mean, x8[i][1] - about.mean), k)
            * about.deviation;
    }
    largest = max(largest, max(bitcast<vec4<u32>>(abs(x8[i][0])), bitcast<vec4<u32>>(abs(x8[i][1]))));
  }
  let most = bitcast<f32>(max(max(largest.x, largest.y), max(largest.z, largest.w)));
  let factor = select(0.0, 127.0 / most, most > 1e-30);
  let low = vec4<u32>(packed(x8[0][0] * factor), packed(x8[0][1] * factor),
                      packed(x8[1][0] * factor), packed(x8[1][1] * factor));
  let high = vec4<u32>(packed(x8[2][0] * factor), packed(x8[2][1] * factor),
                       packed(x8[3][0] * factor), packed(x8[3][1] * factor));
  return Block(low, high, most / 127.0, total(low) + total(high));
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let depth32 = params.depth8 / 4u;
  let first_column = group.x * COLUMNS;
  let last = params.columns - 1u;
  var about = Moments(0.0, 1.0);
  if (NORM) { about = moments_of(group.y, lane); }

  var sum: array<f32, COLUMNS>;
  for (var block = lane; block < depth32; block += LANES) {
    let x = block_of(group.y, block, about);
    for (var i = 0u; i < COLUMNS; i++) {
      // Lines past the end repeat the last one and are not stored.
      let line = min(first_column + i, last) * depth32;
      sum[i] += x.scale * product(line + block, x.low, x.high, x.sum);
    }
  }
  for (var i = 0u; i < COLUMNS; i++) { partial[i * LANES + lane] = sum[i]; }
  workgroupBarrier();
  for (var i = 2u * lane; i < COLUMNS; i += 2u * LANES) {
    var two = vec2<f32>(0.0);
    for (var j = 0u; j < LANES; j++) {
      two += vec2<f32>(partial[i * LANES + j], partial[(i + 1u) * LANES + j]);
    }
    if (first_column + i <= last) { store(group.y, first_column + i, two); }
  }
}
