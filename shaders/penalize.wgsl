// Logits that no fused head has computed, as the sampler takes them: penalties applied, and the rank
// of the largest logit of every 256 noted. A logit of minus infinity becomes the lowest finite one.
//
// Formula:  result[r, c] = penalised(x[r, c]);
//           maxima[r, c / 256] = max(itself, rank(result[r, c])), both as in store_logits.wgsl
// Bindings: x, result [rows, columns] f32 · maxima_and_counts [rows, maxima_and_counts_width]
//           (maxima_and_counts.wgsl) · bias: bound, not read
// Threads:  thread -> one logit
// Limits:   none

//!include "store_logits.wgsl"

@group(0) @binding(0) var<storage, read> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.rows * params.columns) { return; }
  let excluded = bitcast<u32>(x[i]) == 0xff800000u; // minus infinity
  store_one(i / params.columns, i % params.columns, select(x[i], LOWEST, excluded));
}
