// Test pattern of a known sum for the bandwidth kernels: incompressible, no element repeats.
//
// Formula:  result[i] = i * 0x9E3779B1 (mod 2^32), so that Σ result = 0x9E3779B1 * n (n - 1) / 2
// Bindings: result [4 * count] u32
// Threads:  thread -> four elements
// Limits:   count <= 2^30

struct Params { count: u32, }

@group(0) @binding(0) var<storage, read_write> result: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  result[i] = (4u * i + vec4<u32>(0u, 1u, 2u, 3u)) * 0x9E3779B1u;
}
