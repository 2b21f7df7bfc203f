// Linear layer y = x Wᵀ (+ what `store` adds) for several rows, a block of outputs a thread
// (no barriers: CPU adapters, where a load costs ten times the arithmetic on it, and an array that is
// indexed by a loop as much as a load: so all sums have names).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 8 columns, workgroup (y) -> 4 * QUADS rows
// Limits:   columns <= 64 * 65,535, rows <= 4 * QUADS * 65,535

override QUADS: u32 = 2u; // 1 or 2
//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"

struct Quad { // eight elements of four rows of x; v * m is one dot a row
  low: mat4x4<f32>,
  high: mat4x4<f32>,
}

fn shifted_row(row: u32, shift: f32, k: u32) -> mat2x4<f32> {
  let a = read8(row, k);
  if (NORM) { return shifted(a, shift, k); }
  return a;
}

fn quad_of(rows: vec4<u32>, shift: vec4<f32>, k: u32) -> Quad {
  let a = shifted_row(rows.x, shift.x, k);
  let b = shifted_row(rows.y, shift.y, k);
  let c = shifted_row(rows.z, shift.z, k);
  let d = shifted_row(rows.w, shift.w, k);
  return Quad(mat4x4<f32>(a[0], b[0], c[0], d[0]), mat4x4<f32>(a[1], b[1], c[1], d[1]));
}

fn shifts_of(rows: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(shift_of(rows.x), shift_of(rows.y), shift_of(rows.z), shift_of(rows.w));
}

// Sums of the four rows, and of their squares.
fn firsts(x: Quad) -> vec4<f32> { return vec4<f32>(1.0) * x.low + vec4<f32>(1.0) * x.high; }
fn seconds(x: Quad) -> vec4<f32> {
  return vec4<f32>(dot(x.low[0], x.low[0]), dot(x.low[1], x.low[1]),
                   dot(x.low[2], x.low[2]), dot(x.low[3], x.low[3]))
       + vec4<f32>(dot(x.high[0], x.high[0]), dot(x.high[1], x.high[1]),
                   dot(x.high[2], x.high[2]), dot(x.high[3], x.high[3]));
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x * 8u;
  if (column >= params.columns) { return; }
  // Lines past the end repeat the last one and are not stored.
  let last = params.columns - 1u;
  let w0 = min(column + 0u, last) * params.depth8;
  let w1 = min(column + 1u, last) * params.depth8;
  let w2 = min(column + 2u, last) * params.depth8;
  let w3 = min(column + 3u, last) * params.depth8;
  let w4 = min(column + 4u, last) * params.depth8;
  let w5 = min(column + 5u, last) * params.depth8;
  let w6 = min(column + 6u, last) * params.depth8;
  let w7 = min(column + 7u, last) * params.depth8;
  let four = vec4<u32>(0u, 1u, 2u, 3u);
  let row = group.y * QUADS * 4u;
  let rows0 = min(vec4<u32>(row) + four, vec4<u32>(params.rows - 1u));
  let rows1 = min(vec4<u32>(row + 4u) + four, vec4<u32>(params.rows - 1u));
  let shift0 = shifts_of(rows0);
  let shift1 = shifts_of(rows1);

  // sum<quad><column> holds four rows
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
  var first0 = vec4<f32>(0.0); // moments of the rows
  var first1 = vec4<f32>(0.0);
  var second0 = vec4<f32>(0.0);
  var second1 = vec4<f32>(0.0);
  for (var k = 0u; k < params.depth8; k++) {
    let x0 = quad_of(rows0, shift0, k);
    var x1 = x0;
    if (QUADS == 2u) { x1 = quad_of(rows1, shift1, k); }
    if (NORM) {
      first0 += firsts(x0);
      second0 += seconds(x0);
      first1 += firsts(x1);
      second1 += seconds(x1);
    }
    var w = mat2x4<f32>();
    w = gained(weights8(w0 + k), k);
    sum00 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum10 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w1 + k), k);
    sum01 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum11 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w2 + k), k);
    sum02 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum12 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w3 + k), k);
    sum03 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum13 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w4 + k), k);
    sum04 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum14 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w5 + k), k);
    sum05 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum15 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w6 + k), k);
    sum06 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum16 += w[0] * x1.low + w[1] * x1.high; }
    w = gained(weights8(w7 + k), k);
    sum07 += w[0] * x0.low + w[1] * x0.high;
    if (QUADS == 2u) { sum17 += w[0] * x1.low + w[1] * x1.high; }
  }
  var sums = array<vec4<f32>, 16>(
      sum00, sum01, sum02, sum03, sum04, sum05, sum06, sum07,
      sum10, sum11, sum12, sum13, sum14, sum15, sum16, sum17);
  var first = array<vec4<f32>, 2>(first0, first1);
  var second = array<vec4<f32>, 2>(second0, second1);
  for (var i = 0u; i < 4u * QUADS; i++) {
    if (row + i >= params.rows) { break; }
    for (var j = 0u; j < 8u; j += 2u) {
      if (column + j > last) { break; }
      let at = 8u * (i / 4u) + j;
      let one = first[i / 4u][i % 4u];
      let two = second[i / 4u][i % 4u];
      store(row + i, column + j, vec2<f32>(
          normed(column + j, sums[at][i % 4u], vec2<f32>(one, two)),
          normed(min(column + j + 1u, last), sums[at + 1u][i % 4u], vec2<f32>(one, two))));
    }
  }
}
