// Square root of every element.
//
// Formula:  result[i] = sqrt(x[i])
// Bindings: x, result [count] f32
// Threads:  thread -> one element
// Limits:   a negative element gives an undefined value, NaN on most devices

struct Params { count: u32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i < params.count) { result[i] = sqrt(x[i]); }
}
