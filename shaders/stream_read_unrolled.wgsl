// Bandwidth kernel, unrolled: neighbouring threads read neighbouring vec4, eight loads in flight.
//
// Formula:  result[t] = Σ data[i] over i = t, t + threads, t + 2 threads, ... (mod 2^32)
// Bindings: data [4 * count] u32 · result [threads] u32
// Threads:  thread -> one sum; as many as there are results
// Limits:   a thread loops count / threads / 8 + 7 times; count + 8 threads < 2^32

override WORKGROUP: u32 = 256u;
//!include "stream_bindings.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let threads = groups.x * WORKGROUP;
  var sum = vec4<u32>(0u);
  var i = thread.x;
  for (; i + 7u * threads < params.count; i += 8u * threads) {
    let a = data[i] + data[i + threads];
    let b = data[i + 2u * threads] + data[i + 3u * threads];
    let c = data[i + 4u * threads] + data[i + 5u * threads];
    let d = data[i + 6u * threads] + data[i + 7u * threads];
    sum += (a + b) + (c + d);
  }
  for (; i < params.count; i += threads) { sum += data[i]; }
  result[thread.x] = sum.x + sum.y + sum.z + sum.w;
}
