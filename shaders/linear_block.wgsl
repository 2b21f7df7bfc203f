// Linear layer y = x Wᵀ (+ what `store` adds) for many rows, a 4 x 4 block of outputs a thread
// (no barriers: CPU adapters, where a load costs more than the arithmetic on it).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 · weights [columns, 8 * depth8] (variant `weight`: f32, f16)
//           · the rest by variant `store`: store_plain.wgsl or store_qkv.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> 4 rows
// Limits:   columns <= 128 * 65,535, rows <= 4 * 65,535

//!include "weight_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn store_column(column: u32, row: u32, sum: vec4<f32>) {
  if (column >= params.columns) { return; }
  store(row, column, sum.x);
  if (row + 1u < params.rows) { store(row + 1u, column, sum.y); }
  if (row + 2u < params.rows) { store(row + 2u, column, sum.z); }
  if (row + 3u < params.rows) { store(row + 3u, column, sum.w); }
}

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x * 4u;
  if (column >= params.columns) { return; }
  let row = group.y * 4u;
  // Lines past the end repeat the last one and are not stored.
  let last_row = params.rows - 1u;
  let last_column = params.columns - 1u;
  let x0 = row * params.depth8 * 2u;
  let x1 = min(row + 1u, last_row) * params.depth8 * 2u;
  let x2 = min(row + 2u, last_row) * params.depth8 * 2u;
  let x3 = min(row + 3u, last_row) * params.depth8 * 2u;
  let w0 = column * params.depth8;
  let w1 = min(column + 1u, last_column) * params.depth8;
  let w2 = min(column + 2u, last_column) * params.depth8;
  let w3 = min(column + 3u, last_column) * params.depth8;

  var sum0 = vec4<f32>(0.0); // a vector holds one column's four rows
  var sum1 = vec4<f32>(0.0);
  var sum2 = vec4<f32>(0.0);
  var sum3 = vec4<f32>(0.0);
  for (var k = 0u; k < params.depth8; k++) {
    let a = weights8(w0 + k);
    let b = weights8(w1 + k);
    let c = weights8(w2 + k);
    let d = weights8(w3 + k);
    // Four rows' x, as columns of a matrix: m * v would be Σ over rows, v * m is one dot a row.
    let low = mat4x4<f32>(x[x0 + 2u * k], x[x1 + 2u * k], x[x2 + 2u * k], x[x3 + 2u * k]);
    sum0 += a[0] * low;
    sum1 += b[0] * low;
    sum2 += c[0] * low;
    sum3 += d[0] * low;
    let high = mat4x4<f32>(x[x0 + 2u * k + 1u], x[x1 + 2u * k + 1u],
                           x[x2 + 2u * k + 1u], x[x3 + 2u * k + 1u]);
    sum0 += a[1] * high;
    sum1 += b[1] * high;
    sum2 += c[1] * high;
    sum3 += d[1] * high;
  }
  store_column(column, row, sum0);
  store_column(column + 1u, row, sum1);
  store_column(column + 2u, row, sum2);
  store_column(column + 3u, row, sum3);
}
