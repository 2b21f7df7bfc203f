// Linear layer y = x Wᵀ (+ what `store` adds) for one row, four outputs a thread (no barriers: CPU
// adapters, where a load costs more than the arithmetic on it: four columns share those of x).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> row
// Limits:   columns <= 64 * 65,535, rows <= 65,535; linear_block.wgsl is better from two rows on

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"

fn dot8(a: mat2x4<f32>, b: mat2x4<f32>) -> f32 { return dot(a[0], b[0]) + dot(a[1], b[1]); }

@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.y;
  let column = 4u * thread.x;
  if (column >= params.columns) { return; }
  // Lines past the end repeat the last one and are not stored.
  let last = params.columns - 1u;
  let w0 = column * params.depth8;
  let w1 = min(column + 1u, last) * params.depth8;
  let w2 = min(column + 2u, last) * params.depth8;
  let w3 = min(column + 3u, last) * params.depth8;

  let shift = shift_of(row);
  var sum = vec4<f32>(0.0);
  var moments = vec2<f32>(0.0);
  for (var k = 0u; k < params.depth8; k++) {
    var a = read8(row, k);
    if (NORM) {
      a = shifted(a, shift, k);
      moments += vec2<f32>(dot(a[0] + a[1], vec4<f32>(1.0)), dot8(a, a));
      a = gained(a, k);
    }
    sum += vec4<f32>(dot8(weights8(w0 + k), a), dot8(weights8(w1 + k), a),
                     dot8(weights8(w2 + k), a), dot8(weights8(w3 + k), a));
  }
  for (var i = 0u; i < 4u; i++) {
    sum[i] = normed(min(column + i, last), sum[i], moments.x, moments.y);
  }
  store(row, column, sum.xy);
  if (column + 2u < params.columns) { store(row, column + 2u, sum.zw); }
}
