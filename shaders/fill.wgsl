// An array filled with one number.
//
// Formula:  result[i] = the 32-bit number whose bits are `bits`
// Bindings: result [count], 32-bit elements of any type
// Threads:  thread -> one element
// Limits:   none

struct Params { count: u32, bits: u32, }

@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  result[i] = params.bits;
}
