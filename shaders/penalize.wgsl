// Penalties and chunk maxima of logits that were not computed by a head with store_logits.wgsl, for
// sample.wgsl. A logit of minus infinity becomes the lowest finite one.
//
// Formula:  result[m, n] = penalised(x[m, n] + bias[n]);
//           maxima[m, n / 256] = max(itself, rank(result[m, n])), both as in store_logits.wgsl
// Bindings: x, result [tokens, out_features] f32 · maxima_and_counts [tokens,
//           maxima_and_counts_width] (maxima_and_counts.wgsl) · bias [candidates], or [tokens,
//           candidates] with BIAS_OF_ROW; read with HAS_LOGIT_BIAS
// Threads:  thread -> one logit
// Limits:   none

//!include "store_logits.wgsl"

override HAS_LOGIT_BIAS: bool = false;
override BIAS_OF_ROW: bool = false;

@group(0) @binding(0) var<storage, read> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.tokens * params.out_features) { return; }
  let n = i % params.out_features;
  var value = x[i];
  if (bitcast<u32>(value) == 0xff800000u) { // minus infinity
    value = LOWEST;
  } else if (HAS_LOGIT_BIAS && n < params.candidates && value != LOWEST) {
    value += bias[select(0u, i / params.out_features * params.candidates, BIAS_OF_ROW) + n];
  }
  store_one(i / params.out_features, n, value);
}
