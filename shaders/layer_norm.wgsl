// Layer normalisation over the last axis, one workgroup a row.
//
// Formula:  result[r, c] = (x[r, c] - mean_r) / sqrt(var_r + epsilon) * weight[c] + bias[c]
//           with mean and (biased) variance over the first `columns` of a row;
//           columns beyond (padding up to `stride`) are written as zero.
// Bindings: x [rows, stride] · weight, bias [stride] · result [rows, stride], all f32
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   none on rows or columns

override WORKGROUP: u32 = 128u;
//!include "reduce.wgsl"

//!include "layer_norm_bindings.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let first = row * params.stride;
  let count = f32(params.columns);

  var sum = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) { sum += x[first + c]; }
  let mean = workgroup_sum(sum, thread) / count;

  // A second pass over cached values: E[x^2] - mean^2 would cancel for a large mean.
  var squares = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    let d = x[first + c] - mean;
    squares += d * d;
  }
  let scale = inverseSqrt(workgroup_sum(squares, thread) / count + params.epsilon);

  for (var c = thread; c < params.stride; c += WORKGROUP) {
    let value = (x[first + c] - mean) * scale * weight[c] + bias[c];
    result[first + c] = select(0.0, value, c < params.columns);
  }
}
