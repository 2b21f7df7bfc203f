// Packed f16 as f32.
//
// Formula:  result[2 i], result[2 i + 1] = the low and the high half of x[i]
// Bindings: x [pairs] u32 · result [pairs, 2] f32
// Threads:  thread -> one word of x
// Limits:   none

struct Params { pairs: u32, }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i < params.pairs) { result[i] = unpack2x16float(x[i]); }
}
