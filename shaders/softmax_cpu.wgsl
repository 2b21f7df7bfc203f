// Softmax, or its logarithm, along one axis, for CPU adapters: one thread a row, no barriers.
//
// Formula:  as softmax.wgsl
// Bindings: as softmax.wgsl
// Threads:  thread -> row (y * workgroups.x + x) * 8 + local index
// Limits:   as softmax.wgsl

//!include "softmax_bindings.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (group.y * groups.x + group.x) * 8u + thread;
  if (row >= params.rows) { return; }
  let inner = params.inner;
  let first = row / inner * inner * params.columns + row % inner;

  var highest = -3.4e38;
  for (var c = 0u; c < params.columns; c++) { highest = max(highest, x[first + c * inner]); }
  var total = 0.0;
  for (var c = 0u; c < params.columns; c++) { total += exp(x[first + c * inner] - highest); }

  for (var c = 0u; c < params.columns; c++) {
    let value = x[first + c * inner] - highest;
    if (LOGARITHM) {
      result[first + c * inner] = value - log(total);
    } else {
      result[first + c * inner] = exp(value) / total;
    }
  }
}
