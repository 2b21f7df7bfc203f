// Linear layer y = x Wᵀ (+ what `store` adds), one thread a column (no barriers: CPU adapters).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 · weights [columns, 8 * depth8] (variant `weight`: f32, f16)
//           · the rest by variant `store`: store_plain.wgsl or store_qkv.wgsl
// Threads:  thread (x) -> column, workgroup (y) -> ROWS rows (1 or 4) that share each weight read
// Limits:   columns <= 64 * 65,535, rows <= ROWS * 65,535

override ROWS: u32 = 1u;
//!include "weight_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x;
  if (column >= params.columns) { return; }
  let first_row = group.y * ROWS;
  let last = params.rows - 1u;
  let depth4 = params.depth8 * 2u;
  // Rows past the end repeat the last one: they cost nothing extra and are not stored.
  let r0 = first_row * depth4;
  let r1 = min(first_row + 1u, last) * depth4;
  let r2 = min(first_row + 2u, last) * depth4;
  let r3 = min(first_row + 3u, last) * depth4;
  let weight = column * params.depth8;

  var sum = vec4<f32>(0.0);
  for (var k = 0u; k < params.depth8; k++) {
    let w = weights8(weight + k);
    sum.x += dot(w[0], x[r0 + 2u * k]) + dot(w[1], x[r0 + 2u * k + 1u]);
    if (ROWS > 1u) {
      sum.y += dot(w[0], x[r1 + 2u * k]) + dot(w[1], x[r1 + 2u * k + 1u]);
      sum.z += dot(w[0], x[r2 + 2u * k]) + dot(w[1], x[r2 + 2u * k + 1u]);
      sum.w += dot(w[0], x[r3 + 2u * k]) + dot(w[1], x[r3 + 2u * k + 1u]);
    }
  }
  for (var i = 0u; i < ROWS; i++) {
    if (first_row + i < params.rows) { store(first_row + i, column, sum[i]); }
  }
}
