// Normally distributed random values, for weights that are initialised, not loaded.
//
// Formula:  Box-Muller: stddev * sqrt(-2 ln u) * cos(2 pi v), u and v from
//           pcg4d(first + i, stream, seed)
// Bindings: result [count] f32
// Threads:  thread -> one value
// Limits:   count < 2^32

//!include "random.wgsl"

struct Params { count: u32, first: u32, seed: u32, stream: u32, stddev: f32, }

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let bits = pcg4d(vec4<u32>(params.first + i, params.stream, params.seed, 0u));
  let u = (f32(bits.x >> 8u) + 1.0) / 16777216.0; // (0, 1]: ln is finite
  let v = f32(bits.y >> 8u) / 16777216.0;
  result[i] = params.stddev * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
