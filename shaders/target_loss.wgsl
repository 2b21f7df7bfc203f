// Cross-entropy loss of a language model: -log of the probability of the next token, in nats.
//
// Formula:  result[m] = log Σ_n exp(logits[m, n] - h) + h - logits[m, targets[m]] with h the row's
//           maximum; 0 if targets[m] is no token (nothing to predict)
// Bindings: logits [tokens, vocabulary] f32 · targets [tokens] u32 · result [tokens] f32
// Threads:  WORKGROUP threads share one token; workgroup (x, y) -> token y * workgroups.x + x
// Limits:   a row of only -infinity gives NaN

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"

struct Params { tokens: u32, vocabulary: u32, }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.tokens) { return; }
  let first = row * params.vocabulary;

  var largest = -3.4e38;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    largest = max(largest, logits[first + c]);
  }
  let highest = workgroup_max(largest, thread);

  var sum = 0.0;
  for (var c = thread; c < params.vocabulary; c += WORKGROUP) {
    sum += exp(logits[first + c] - highest);
  }
  let total = workgroup_sum(sum, thread);

  if (thread == 0u) {
    let wanted = targets[row];
    var loss = 0.0;
    if (wanted < params.vocabulary) { loss = log(total) + highest - logits[first + wanted]; }
    result[row] = loss;
  }
}
