// Matrix product of a batch of matrices, for CPU adapters: one thread an element, no barriers.
//
// Formula:  as matmul.wgsl
// Bindings: as matmul.wgsl
// Threads:  thread -> one element of the result; neighbours read neighbouring columns of b
// Limits:   none

//!include "matmul_bindings.wgsl"

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  let column = i % params.columns;
  let row = i / params.columns % params.rows;
  let batch = i / params.columns / params.rows;
  if (batch >= params.batches) { return; }
  let left = batch * params.a_step + row * params.inner;
  let right = batch * params.b_step + column;
  let whole = params.inner / 4u * 4u;
  var sums = vec4<f32>(0.0); // four at a time: fewer iterations, and shorter sums are more exact
  for (var k = 0u; k < whole; k += 4u) {
    let x = vec4<f32>(a[left + k], a[left + k + 1u], a[left + k + 2u], a[left + k + 3u]);
    let at = right + k * params.columns;
    let y = vec4<f32>(b[at], b[at + params.columns], b[at + 2u * params.columns],
                      b[at + 3u * params.columns]);
    sums += x * y;
  }
  var sum = sums.x + sums.y + sums.z + sums.w;
  for (var k = whole; k < params.inner; k++) { sum += a[left + k] * b[right + k * params.columns]; }
  result[i] = sum;
}
