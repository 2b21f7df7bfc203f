// Kullback-Leibler divergence of one model's predictions from another's, in nats, and agreement.
//
// Formula:  p = softmax(reference[m]), q = softmax(logits[m]);
//           divergence[m] = Σ_n p_n log(p_n / q_n) = Σ_n (q_n - p_n - p_n d_n) with
//           d_n = log(q_n / p_n); agreement[m] = 1 if some n is largest both in logits[m] and in
//           reference[m], else 0; both 0 if targets[m] is no token (nothing to predict)
// Bindings: logits, reference [tokens, vocabulary] f32 · targets [tokens] u32 · divergence,
//           agreement [tokens] f32
// Threads:  WORKGROUP threads share one token; workgroup (x, y) -> token y * workgroups.x + x
// Limits:   infinities and NaN in a row give NaN, or an infinity
//
// The second form of the sum has no negative term, so nothing cancels between tokens of the
// vocabulary: models that are almost equal differ by 1e-9, not by the rounding error of a sum of
// large terms. d enters it squared, which makes the error of its two logarithms negligible.

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"

struct Params { tokens: u32, vocabulary: u32, }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> reference: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> divergence: array<f32>;
@group(0) @binding(4) var<storage, read_write> agreement: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// q - p - p d of p = exp(log_p) and q = exp(log_q).
fn term(log_p: f32, log_q: f32) -> f32 {
  let d = log_q - log_p;
  let p = exp(log_p);
  if (abs(d) > 0.25) { return exp(log_q) - p - p * d; }
  // p (exp(d) - 1 - d), whose first terms cancel: its series without them.
  return p * d * d
      * (1.0 / 2.0 + d * (1.0 / 6.0 + d * (1.0 / 24.0 + d * (1.0 / 120.0 + d / 720.0))));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.tokens) { return; }
  if (targets[row] >= params.vocabulary) {
    if (thread == 0u) {
      divergence[row] = 0.0;
      agreement[row] = 0.0;
    }
    return;
  }
  let first = row * params.vocabulary;

  var largest = vec2(-3.4e38);
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    largest = max(largest, vec2(reference[first + c], logits[first + c]));
  }
  let highest = vec2(workgroup_max(largest.x, thread), workgroup_max(largest.y, thread));

  var sum = vec2(0.0);
  var both = 0.0;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    let value = vec2(reference[first + c], logits[first + c]);
    sum += exp(value - highest);
    if (all(value == highest)) { both = 1.0; }
  }
  let shift = highest + log(vec2(workgroup_sum(sum.x, thread), workgroup_sum(sum.y, thread)));
  let agree = workgroup_max(both, thread);

  var nats = 0.0;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    nats += term(reference[first + c] - shift.x, logits[first + c] - shift.y);
  }
  let total = workgroup_sum(nats, thread);

  if (thread == 0u) {
    divergence[row] = total;
    agreement[row] = agree;
  }
}
