// Linear layer y = x Wᵀ (+ what `store` adds) for several rows, a block of outputs a thread
// (no barriers: for CPU adapters, where a load costs ten times the arithmetic on it).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 8 columns, workgroup (y) -> 4 * QUADS rows
// Limits:   columns <= 64 * 65,535, rows <= 4 * QUADS * 65,535
//
// The sums of the eight columns have names of their own: as an array that a loop indexes they leave
// the registers, and the kernel takes 1.3 to 2 times as long (measured on llvmpipe).

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "quads.wgsl"

fn shifted_row(row: u32, shift: f32, k: u32) -> mat2x4<f32> {
  let a = read8(row, k);
  if (NORM) { return shifted(a, shift, k); }
  return a;
}

fn quad_of(rows: vec4<u32>, shift: vec4<f32>, k: u32) -> Quad {
  return quad(shifted_row(rows.x, shift.x, k), shifted_row(rows.y, shift.y, k),
              shifted_row(rows.z, shift.z, k), shifted_row(rows.w, shift.w, k));
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
  let four = vec4<u32>(0u, 1u, 2u, 3u);
  let low = min(vec4<u32>(column) + four, vec4<u32>(last)) * params.depth8;
  let high = min(vec4<u32>(column + 4u) + four, vec4<u32>(last)) * params.depth8;
  let row = group.y * QUADS * 4u;
  let rows0 = min(vec4<u32>(row) + four, vec4<u32>(params.rows - 1u));
  let rows1 = min(vec4<u32>(row + 4u) + four, vec4<u32>(params.rows - 1u));
  let shift0 = shifts_of(rows0);
  let shift1 = shifts_of(rows1);

  var sum0 = mat2x4<f32>(); // of column j: see quads.wgsl
  var sum1 = mat2x4<f32>();
  var sum2 = mat2x4<f32>();
  var sum3 = mat2x4<f32>();
  var sum4 = mat2x4<f32>();
  var sum5 = mat2x4<f32>();
  var sum6 = mat2x4<f32>();
  var sum7 = mat2x4<f32>();
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
    sum0 = plus_column(sum0, gained(weights8(low.x + k), k), x0, x1);
    sum1 = plus_column(sum1, gained(weights8(low.y + k), k), x0, x1);
    sum2 = plus_column(sum2, gained(weights8(low.z + k), k), x0, x1);
    sum3 = plus_column(sum3, gained(weights8(low.w + k), k), x0, x1);
    sum4 = plus_column(sum4, gained(weights8(high.x + k), k), x0, x1);
    sum5 = plus_column(sum5, gained(weights8(high.y + k), k), x0, x1);
    sum6 = plus_column(sum6, gained(weights8(high.z + k), k), x0, x1);
    sum7 = plus_column(sum7, gained(weights8(high.w + k), k), x0, x1);
  }
  var sums = array<mat2x4<f32>, 8>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7);
  var first = array<vec4<f32>, 2>(first0, first1);
  var second = array<vec4<f32>, 2>(second0, second1);
  for (var i = 0u; i < 4u * QUADS; i++) {
    if (row + i >= params.rows) { break; }
    for (var j = 0u; j < 8u; j += 2u) {
      if (column + j > last) { break; }
      let one = first[i / 4u][i % 4u];
      let two = second[i / 4u][i % 4u];
      store(row + i, column + j, vec2<f32>(
          normed(column + j, sums[j][i / 4u][i % 4u], vec2<f32>(one, two)),
          normed(min(column + j + 1u, last), sums[j + 1u][i / 4u][i % 4u], vec2<f32>(one, two))));
    }
  }
}
