// Bandwidth kernel, strided: neighbouring threads read neighbouring vec4, one load at a time.
//
// Formula:  result[t] = Σ data[i] over i = t, t + threads, t + 2 threads, ... (mod 2^32)
// Bindings: data [4 * count] u32 · result [threads] u32
// Threads:  thread -> one sum; as many as there are results
// Limits:   a thread loops count / threads times

override WORKGROUP: u32 = 256u;
//!include "stream_bindings.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let threads = groups.x * WORKGROUP;
  var sum = vec4<u32>(0u);
  for (var i = thread.x; i < params.count; i += threads) { sum += data[i]; }
  result[thread.x] = sum.x + sum.y + sum.z + sum.w;
}
