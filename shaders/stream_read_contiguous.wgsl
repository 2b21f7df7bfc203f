// Bandwidth kernel, contiguous: each thread reads a range of its own, eight loads in flight.
//
// Formula:  result[t] = Σ data[i] over i = t length .. (t + 1) length - 1, i < count (mod 2^32),
//           length = ceil(count / threads)
// Bindings: data [4 * count] u32 · result [threads] u32
// Threads:  thread -> one sum; as many as there are results
// Limits:   a thread loops length / 8 + 7 times; count + 8 threads < 2^32

override WORKGROUP: u32 = 64u;
//!include "stream_bindings.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let threads = groups.x * WORKGROUP;
  let length = (params.count + threads - 1u) / threads;
  let end = min(params.count, (thread.x + 1u) * length);
  var sum = vec4<u32>(0u);
  var i = thread.x * length;
  for (; i + 7u < end; i += 8u) {
    let a = data[i] + data[i + 1u];
    let b = data[i + 2u] + data[i + 3u];
    let c = data[i + 4u] + data[i + 5u];
    let d = data[i + 6u] + data[i + 7u];
    sum += (a + b) + (c + d);
  }
  for (; i < end; i++) { sum += data[i]; }
  result[thread.x] = sum.x + sum.y + sum.z + sum.w;
}
