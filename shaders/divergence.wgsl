// How far one model's predictions are from another's: the Kullback-Leibler divergence, in nats.
//
// Formula:  p = softmax(reference[r]), q = softmax(logits[r]);
//           divergence[r] = Σ_c p_c log(p_c / q_c) = Σ_c (q_c - p_c - p_c d_c), d_c = log(q_c / p_c);
//           agreement[r] = 1 if some column is largest both in logits[r] and in reference[r], else 0;
//           both 0 where targets[r] is no column (nothing to predict there)
// Bindings: logits, reference [rows, columns] f32 · targets [rows] u32 · divergence, agreement [rows] f32
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   infinities and NaN in a row give NaN, or an infinity
//
// The second form of the sum has no negative term, so nothing cancels between columns: models that
// are all but equal differ by 1e-9, not by the rounding error of a sum of large terms. And d enters
// it squared, so that the error of the two logarithms below hardly matters.

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"

struct Params { rows: u32, columns: u32, }

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
  // p (exp(d) - 1 - d), whose first terms cancel: the series goes on where they end.
  return p * d * d * (1.0 / 2.0 + d * (1.0 / 6.0 + d * (1.0 / 24.0 + d * (1.0 / 120.0 + d / 720.0))));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  if (targets[row] >= params.columns) {
    if (thread == 0u) {
      divergence[row] = 0.0;
      agreement[row] = 0.0;
    }
    return;
  }
  let first = row * params.columns;

  var largest = vec2(-3.4e38);
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    largest = max(largest, vec2(reference[first + c], logits[first + c]));
  }
  let highest = vec2(workgroup_max(largest.x, thread), workgroup_max(largest.y, thread));

  var sum = vec2(0.0);
  var both = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    let value = vec2(reference[first + c], logits[first + c]);
    sum += exp(value - highest);
    if (all(value == highest)) { both = 1.0; }
  }
  let shift = highest + log(vec2(workgroup_sum(sum.x, thread), workgroup_sum(sum.y, thread)));
  let agree = workgroup_max(both, thread);

  var nats = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    nats += term(reference[first + c] - shift.x, logits[first + c] - shift.y);
  }
  let total = workgroup_sum(nats, thread);

  if (thread == 0u) {
    divergence[row] = total;
    agreement[row] = agree;
  }
}
