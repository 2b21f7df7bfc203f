// Linear layer y = x Wᵀ (+ what `store` adds) for several rows, a 4 x 4 block of outputs a thread
// (no barriers: CPU adapters, where a load costs more than the arithmetic on it).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl or
//           store_qkv.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> 4 rows
// Limits:   columns <= 128 * 65,535, rows <= 4 * 65,535

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"

fn shifted_row(row: u32, shift: f32, k: u32) -> mat2x4<f32> {
  let a = read8(row, k);
  if (NORM) { return shifted(a, shift, k); }
  return a;
}

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x * 4u;
  if (column >= params.columns) { return; }
  // Lines past the end repeat the last one and are not stored.
  let last_row = params.rows - 1u;
  let last_column = params.columns - 1u;
  let rows = min(vec4<u32>(group.y * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last_row));
  let w0 = column * params.depth8;
  let w1 = min(column + 1u, last_column) * params.depth8;
  let w2 = min(column + 2u, last_column) * params.depth8;
  let w3 = min(column + 3u, last_column) * params.depth8;

  let shift = vec4<f32>(shift_of(rows.x), shift_of(rows.y), shift_of(rows.z), shift_of(rows.w));
  var first = vec4<f32>(0.0); // moments of the four rows
  var second = vec4<f32>(0.0);
  var sum: mat4x4<f32>; // a vector holds one column's four rows
  for (var k = 0u; k < params.depth8; k++) {
    let a = shifted_row(rows.x, shift.x, k);
    let b = shifted_row(rows.y, shift.y, k);
    let c = shifted_row(rows.z, shift.z, k);
    let d = shifted_row(rows.w, shift.w, k);
    // Four rows' x, as columns of a matrix: m * v would be Σ over rows, v * m is one dot a row.
    let low = mat4x4<f32>(a[0], b[0], c[0], d[0]);
    let high = mat4x4<f32>(a[1], b[1], c[1], d[1]);
    if (NORM) {
      for (var i = 0u; i < 4u; i++) {
        first[i] += dot(low[i] + high[i], vec4<f32>(1.0));
        second[i] += dot(low[i], low[i]) + dot(high[i], high[i]);
      }
    }
    let p = gained(weights8(w0 + k), k);
    let q = gained(weights8(w1 + k), k);
    let r = gained(weights8(w2 + k), k);
    let s = gained(weights8(w3 + k), k);
    sum[0] += p[0] * low + p[1] * high;
    sum[1] += q[0] * low + q[1] * high;
    sum[2] += r[0] * low + r[1] * high;
    sum[3] += s[0] * low + s[1] * high;
  }
  for (var j = 0u; j < 4u; j += 2u) {
    if (column + j >= params.columns) { break; }
    for (var i = 0u; i < 4u; i++) {
      let row = group.y * 4u + i;
      if (row >= params.rows) { break; }
      let next = min(column + j + 1u, last_column);
      store(row, column + j, vec2<f32>(
          normed(column + j, sum[j][i], first[i], second[i]),
          normed(next, sum[j + 1u][i], first[i], second[i])));
    }
  }
}
