// Linear layer y = x Wᵀ (+ what `store` adds) in integers, two outputs a thread: x rounded to int8
// by quantize_rows.wgsl, W stored in blocks (no barriers: CPU adapters).
//
// Formula:  sum[r, c] = Σ_blocks scale_x * scale_w * Σ_32 q_x * q_w, the inner sum in i32; then
//           store(r, c, sum)
// Bindings: x [rows, depth32] blocks of three vec4<u32>, see quantize_rows.wgsl · weights
//           [columns, 32 * depth32] (variant `weight`: q8, q4) · the rest by variant `store`:
//           store_plain.wgsl or store_qkv.wgsl
// Threads:  thread (x) -> two columns, workgroup (y) -> row
// Limits:   columns <= 64 * 65,535, rows <= 65,535, depth a multiple of 32; linear_block.wgsl is as
//           good from two rows on, where loads are shared

//!include "block_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let column = 2u * thread.x;
  if (column >= params.columns) { return; }
  let depth32 = params.depth8 / 4u;
  let line = group.y * depth32;
  let w0 = column * depth32;
  let w1 = min(column + 1u, params.columns - 1u) * depth32; // past the end: not stored
  var sum = vec2<f32>(0.0);
  for (var k = 0u; k < depth32; k++) {
    let at = 3u * (line + k);
    let about = x[at + 2u]; // scale and sum
    let total = bitcast<i32>(about.y);
    sum += bitcast<f32>(about.x) * vec2<f32>(product(w0 + k, x[at], x[at + 1u], total),
                                             product(w1 + k, x[at], x[at + 1u], total));
  }
  store(group.y, column, sum);
}
