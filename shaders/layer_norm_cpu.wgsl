// Layer normalisation over the last axis, for CPU adapters: one thread a row, no barriers.
//
// Formula:  as layer_norm.wgsl
// Bindings: as layer_norm.wgsl
// Threads:  thread -> row (y * workgroups.x + x) * 8 + local index
// Limits:   none on rows or columns

//!include "layer_norm_bindings.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (group.y * groups.x + group.x) * 8u + thread;
  if (row >= params.rows) { return; }
  let first = row * params.stride;
  let count = f32(params.columns);

  var sum = 0.0;
  for (var c = 0u; c < params.columns; c++) { sum += x[first + c]; }
  let mean = sum / count;

  var squares = 0.0;
  for (var c = 0u; c < params.columns; c++) {
    let d = x[first + c] - mean;
    squares += d * d;
  }
  let scale = inverseSqrt(squares / count + params.epsilon);

  for (var c = 0u; c < params.columns; c++) {
    result[first + c] = (x[first + c] - mean) * scale * weight[c] + bias[c];
  }
  for (var c = params.columns; c < params.stride; c++) { result[first + c] = 0.0; }
}
