// Linear layer y = x Wᵀ (+ what `store` adds) for several rows, a block of outputs a thread
// (no barriers: CPU adapters, where a load costs more than the arithmetic on it).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl or
//           store_qkv.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> 4 * QUADS rows
// Limits:   columns <= 128 * 65,535, rows <= 4 * QUADS * 65,535

override QUADS: u32 = 2u; // 1 or 2
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
  let last_column = params.columns - 1u;
  let w0 = column * params.depth8;
  let w1 = min(column + 1u, last_column) * params.depth8;
  let w2 = min(column + 2u, last_column) * params.depth8;
  let w3 = min(column + 3u, last_column) * params.depth8;

  var rows: array<vec4<u32>, 2>; // [quad], here and below
  var shift: array<vec4<f32>, 2>;
  for (var n = 0u; n < QUADS; n++) {
    let row = (group.y * QUADS + n) * 4u;
    rows[n] = min(vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.rows - 1u));
    shift[n] = vec4<f32>(shift_of(rows[n].x), shift_of(rows[n].y),
                         shift_of(rows[n].z), shift_of(rows[n].w));
  }
  var first: array<vec4<f32>, 2>; // moments of the rows
  var second: array<vec4<f32>, 2>;
  var sum: array<mat4x4<f32>, 2>; // a vector holds one column's four rows
  for (var k = 0u; k < params.depth8; k++) {
    let p = gained(weights8(w0 + k), k);
    let q = gained(weights8(w1 + k), k);
    let r = gained(weights8(w2 + k), k);
    let s = gained(weights8(w3 + k), k);
    for (var n = 0u; n < QUADS; n++) {
      let a = shifted_row(rows[n].x, shift[n].x, k);
      let b = shifted_row(rows[n].y, shift[n].y, k);
      let c = shifted_row(rows[n].z, shift[n].z, k);
      let d = shifted_row(rows[n].w, shift[n].w, k);
      // Four rows' x, as columns of a matrix: m * v would be Σ over rows, v * m is one dot a row.
      let low = mat4x4<f32>(a[0], b[0], c[0], d[0]);
      let high = mat4x4<f32>(a[1], b[1], c[1], d[1]);
      if (NORM) {
        for (var i = 0u; i < 4u; i++) {
          first[n][i] += dot(low[i] + high[i], vec4<f32>(1.0));
          second[n][i] += dot(low[i], low[i]) + dot(high[i], high[i]);
        }
      }
      sum[n][0] += p[0] * low + p[1] * high;
      sum[n][1] += q[0] * low + q[1] * high;
      sum[n][2] += r[0] * low + r[1] * high;
      sum[n][3] += s[0] * low + s[1] * high;
    }
  }
  for (var j = 0u; j < 4u; j += 2u) {
    if (column + j >= params.columns) { break; }
    let next = min(column + j + 1u, last_column);
    for (var n = 0u; n < QUADS; n++) {
      for (var i = 0u; i < 4u; i++) {
        let row = (group.y * QUADS + n) * 4u + i;
        if (row >= params.rows) { break; }
        store(row, column + j, vec2<f32>(
            normed(column + j, sum[n][j][i], first[n][i], second[n][i]),
            normed(next, sum[n][j + 1u][i], first[n][i], second[n][i])));
      }
    }
  }
}
