// Linear layer y = x Wᵀ (+ what `store` adds), one thread an output (no barriers: CPU adapters).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 · weights [columns, 8 * depth8] (variant `weight`: f32, f16)
//           · the rest by variant `store`: store_plain.wgsl or store_qkv.wgsl
// Threads:  thread (x) -> column, workgroup (y) -> row
// Limits:   columns <= 64 * 65,535, rows <= 65,535; linear_block.wgsl is better from two rows on

//!include "weight_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = thread.x;
  if (column >= params.columns) { return; }
  let line = group.y * params.depth8;
  let weight = column * params.depth8;
  var sum = 0.0;
  for (var k = 0u; k < params.depth8; k++) {
    let w = weights8(weight + k);
    sum += dot(w[0], x[2u * (line + k)]) + dot(w[1], x[2u * (line + k) + 1u]);
  }
  store(group.y, column, sum);
}
