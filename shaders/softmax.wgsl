// Softmax, or its logarithm, along one axis; one workgroup a row.
//
// Formula:  result[c] = exp(x[c] - m) / s, or x[c] - m - log(s) if LOGARITHM,
//           with m = max of x and s = sum of exp(x - m) over the row
// Bindings: x, result [rows / inner, columns, inner] f32: the elements of a row are `inner` apart
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   a row of only -infinity gives NaN, as in NumPy: mask with a finite number

override WORKGROUP: u32 = 128u;
//!include "reduce.wgsl"
//!include "softmax_bindings.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let inner = params.inner;
  let first = row / inner * inner * params.columns + row % inner;

  var largest = -3.4e38;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    largest = max(largest, x[first + c * inner]);
  }
  let highest = workgroup_max(largest, thread);

  var sum = 0.0;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    sum += exp(x[first + c * inner] - highest);
  }
  let total = workgroup_sum(sum, thread);

  for (var c = thread; c < params.columns; c += WORKGROUP) {
    let value = x[first + c * inner] - highest;
    if (LOGARITHM) {
      result[first + c * inner] = value - log(total);
    } else {
      result[first + c * inner] = exp(value) / total;
    }
  }
}
