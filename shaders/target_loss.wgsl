// The loss of a language model: how unlikely it finds the token that follows, in nats.
//
// Formula:  result[r] = log Σ_c exp(logits[r, c] - m) + m - logits[r, targets[r]], m the row's maximum;
//           0 where targets[r] is no column (nothing to predict there)
// Bindings: logits [rows, columns] f32 · targets [rows] u32 · result [rows] f32
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   a row of nothing but -infinity gives NaN

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"

struct Params { rows: u32, columns: u32, }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let first = row * params.columns;

  var largest = -3.4e38;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    largest = max(largest, logits[first + c]);
  }
  let highest = workgroup_max(largest, thread);

  var sum = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    sum += exp(logits[first + c] - highest);
  }
  let total = workgroup_sum(sum, thread);

  if (thread == 0u) {
    let wanted = targets[row];
    var loss = 0.0;
    if (wanted < params.columns) { loss = log(total) + highest - logits[first + wanted]; }
    result[row] = loss;
  }
}
