// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for several rows, W8A8: x was rounded to int8 by
// round_rows.wgsl, W is stored in blocks; a block of outputs a thread, as in linear_block.wgsl
// (CPU adapters).
//
// Formula:  sum[r, c] = Σ_blocks scale_x * scale_w * Σ_32 q_x * q_w; then store(r, c, sum). The inner
//           sum is of whole numbers below 2^24, exact in f32, and the outer one is taken in the order
//           of linear_dot.wgsl: both give the same bits.
// Bindings: x [rows, 8 * depth8] int8, four in a word · scales [rows, depth8 / 4] f32 · weights
//           [columns, 8 * depth8] (variant `weight`: q8, q4) · the rest by variant `store`:
//           store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 8 columns, workgroup (y) -> 4 * QUADS rows
// Limits:   columns <= 64 * 65,535, rows <= 4 * QUADS * 65,535, depth8 a multiple of 4

override QUADS: u32 = 2u; // 1 or 2
//!include "levels_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> scales: array<f32>;

struct Quad { // eight elements of four rows of x; v * m is one dot a row
  low: mat4x4<f32>,
  high: mat4x4<f32>,
}

fn read8(row: u32, k: u32) -> mat2x4<f32> {
  let four = x[row * params.depth8 + k];
  return mat2x4<f32>(vec4<f32>(unpack4xI8(four.x)), vec4<f32>(unpack4xI8(four.y)));
}

fn quad_of(rows: vec4<u32>, k: u32) -> Quad {
  let a = read8(rows.x, k);
  let b = read8(rows.y, k);
  let c = read8(rows.z, k);
  let d = read8(rows.w, k);
  return Quad(mat4x4<f32>(a[0], b[0], c[0], d[0]), mat4x4<f32>(a[1], b[1], c[1], d[1]));
}

fn scales_of(rows: vec4<u32>, block: u32) -> vec4<f32> {
  let at = rows * (params.depth8 / 4u) + block;
  return vec4<f32>(scales[at.x], scales[at.y], scales[at.z], scales[at.w]);
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x * 8u;
  if (column >= params.columns) { return; }
  // Rows and columns past the end repeat the last one and are not stored.
  let last = params.columns - 1u;
  let blocks = params.depth8 / 4u;
  let w0 = min(column + 0u, last) * blocks;
  let w1 = min(column + 1u, last) * blocks;
  let w2 = min(column + 2u, last) * blocks;
  let w3 = min(column + 3u, last) * blocks;
  let w4 = min(column + 4u, last) * blocks;
  let w5 = min(column + 5u, last) * blocks;
  let w6 = min(column + 6u, last) * blocks;
  let w7 = min(column + 7u, last) * blocks;
  let four = vec4<u32>(0u, 1u, 2u, 3u);
  let row = group.y * QUADS * 4u;
  let rows0 = min(vec4<u32>(row) + four, vec4<u32>(params.rows - 1u));
  let rows1 = min(vec4<u32>(row + 4u) + four, vec4<u32>(params.rows - 1u));

  // sum<quad><column> holds four rows, part<quad><column> their inner sums of a block
  var sum00 = vec4<f32>(0.0);
  var sum01 = vec4<f32>(0.0);
  var sum02 = vec4<f32>(0.0);
  var sum03 = vec4<f32>(0.0);
  var sum04 = vec4<f32>(0.0);
  var sum05 = vec4<f32>(0.0);
  var sum06 = vec4<f32>(0.0);
  var sum07 = vec4<f32>(0.0);
  var sum10 = vec4<f32>(0.0);
  var sum11 = vec4<f32>(0.0);
  var sum12 = vec4<f32>(0.0);
  var sum13 = vec4<f32>(0.0);
  var sum14 = vec4<f32>(0.0);
  var sum15 = vec4<f32>(0.0);
  var sum16 = vec4<f32>(0.0);
  var sum17 = vec4<f32>(0.0);
  for (var i = 0u; i < blocks; i++) {
    var part00 = vec4<f32>(0.0);
    var part01 = vec4<f32>(0.0);
    var part02 = vec4<f32>(0.0);
    var part03 = vec4<f32>(0.0);
    var part04 = vec4<f32>(0.0);
    var part05 = vec4<f32>(0.0);
    var part06 = vec4<f32>(0.0);
    var part07 = vec4<f32>(0.0);
    var part10 = vec4<f32>(0.0);
    var part11 = vec4<f32>(0.0);
    var part12 = vec4<f32>(0.0);
    var part13 = vec4<f32>(0.0);
    var part14 = vec4<f32>(0.0);
    var part15 = vec4<f32>(0.0);
    var part16 = vec4<f32>(0.0);
    var part17 = vec4<f32>(0.0);
    let at0 = place_of(w0 + i);
    let at1 = place_of(w1 + i);
    let at2 = place_of(w2 + i);
    let at3 = place_of(w3 + i);
    let at4 = place_of(w4 + i);
    let at5 = place_of(w5 + i);
    let at6 = place_of(w6 + i);
    let at7 = place_of(w7 + i);
    for (var g = 0u; g < 4u; g++) {
      let x0 = quad_of(rows0, 4u * i + g);
      var x1 = x0;
      if (QUADS == 2u) { x1 = quad_of(rows1, 4u * i + g); }
      var w = mat2x4<f32>();
      w = levels8(at0 + g);
      part00 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part10 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at1 + g);
      part01 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part11 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at2 + g);
      part02 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part12 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at3 + g);
      part03 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part13 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at4 + g);
      part04 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part14 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at5 + g);
      part05 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part15 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at6 + g);
      part06 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part16 += w[0] * x1.low + w[1] * x1.high; }
      w = levels8(at7 + g);
      part07 += w[0] * x0.low + w[1] * x0.high;
      if (QUADS == 2u) { part17 += w[0] * x1.low + w[1] * x1.high; }
    }
    let scale0 = scales_of(rows0, i);
    var scale1 = scale0;
    if (QUADS == 2u) { scale1 = scales_of(rows1, i); }
    var scale = 0.0;
    scale = scale_of(w0 + i);
    sum00 += scale0 * (part00 * scale);
    if (QUADS == 2u) { sum10 += scale1 * (part10 * scale); }
    scale = scale_of(w1 + i);
    sum01 += scale0 * (part01 * scale);
    if (QUADS == 2u) { sum11 += scale1 * (part11 * scale); }
    scale = scale_of(w2 + i);
    sum02 += scale0 * (part02 * scale);
    if (QUADS == 2u) { sum12 += scale1 * (part12 * scale); }
    scale = scale_of(w3 + i);
    sum03 += scale0 * (part03 * scale);
    if (QUADS == 2u) { sum13 += scale1 * (part13 * scale); }
    scale = scale_of(w4 + i);
    sum04 += scale0 * (part04 * scale);
    if (QUADS == 2u) { sum14 += scale1 * (part14 * scale); }
    scale = scale_of(w5 + i);
    sum05 += scale0 * (part05 * scale);
    if (QUADS == 2u) { sum15 += scale1 * (part15 * scale); }
    scale = scale_of(w6 + i);
    sum06 += scale0 * (part06 * scale);
    if (QUADS == 2u) { sum16 += scale1 * (part16 * scale); }
    scale = scale_of(w7 + i);
    sum07 += scale0 * (part07 * scale);
    if (QUADS == 2u) { sum17 += scale1 * (part17 * scale); }
  }
  var sums = array<vec4<f32>, 16>(
      sum00, sum01, sum02, sum03, sum04, sum05, sum06, sum07,
      sum10, sum11, sum12, sum13, sum14, sum15, sum16, sum17);
  for (var i = 0u; i < 4u * QUADS; i++) {
    if (row + i >= params.rows) { break; }
    for (var j = 0u; j < 8u; j += 2u) {
      if (column + j > last) { break; }
      let at = 8u * (i / 4u) + j;
      store(row + i, column + j, vec2<f32>(sums[at][i % 4u], sums[at + 1u][i % 4u]));
    }
  }
}
