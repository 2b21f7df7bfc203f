// How a language model predicted a token: loss, entropy and rank, and the log of the normaliser.
//
// Formula:  result[m] = (z - x[t], Σ_n p_n (z - x[n]), number of n with x[n] > x[t], z)
//           with x = logits[m], t = targets[m], z = log Σ_n exp x[n] and p_n = exp(x[n] - z); loss
//           and rank are 0 if t is no token (nothing to predict)
// Bindings: logits [tokens, vocabulary] f32 · targets [tokens] u32 · result [tokens, 4] f32
// Threads:  WORKGROUP threads share one token; workgroup (x, y) -> token y * workgroups.x + x
// Limits:   ranks are exact up to 2^24; a row of only -infinity gives NaN

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"

struct Params { tokens: u32, vocabulary: u32, }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.tokens) { return; }
  let first = row * params.vocabulary;
  let wanted = targets[row];
  let has_target = wanted < params.vocabulary;
  let own = logits[first + select(0u, wanted, has_target)];

  var largest = -3.4e38;
  var above = 0.0;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    let value = logits[first + c];
    largest = max(largest, value);
    above += select(0.0, 1.0, value > own);
  }
  let highest = workgroup_max(largest, thread);
  let rank = workgroup_sum(above, thread);

  var sum = 0.0;
  var weighted = 0.0;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    let below = logits[first + c] - highest;
    let e = exp(below);
    sum += e;
    if (e > 0.0) { weighted += e * below; } // 0 * -infinity would be NaN
  }
  let total = workgroup_sum(sum, thread);
  let mean = workgroup_sum(weighted, thread) / total;

  if (thread == 0u) {
    let entropy = log(total) - mean;
    let z = log(total) + highest;
    let loss = log(total) + (highest - own);
    result[row] = vec4(0.0, entropy, 0.0, z);
    if (has_target) { result[row] = vec4(loss, entropy, rank, z); }
  }
}
