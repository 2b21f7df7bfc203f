// The chosen row's last hidden state, appended to the history of its group (contrastive search).
//
// Formula:  history[g, position[g, 0] - 1] = x[g, parents[g, 0]], where position > first
// Bindings: x [groups, rows, width] · parents, position, first [groups, rows] u32 ·
//           history [groups, length, width]
// Threads:  thread -> one element of a hidden state
// Limits:   positions up to length (callers check)

struct Params { count: u32, rows: u32, length: u32, width: u32, } // count = groups * width

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> parents: array<u32>;
@group(0) @binding(2) var<storage, read> position: array<u32>;
@group(0) @binding(3) var<storage, read> first: array<u32>;
@group(0) @binding(4) var<storage, read_write> history: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let g = i / params.width;
  let d = i % params.width;
  let row = g * params.rows;
  if (position[row] <= first[row]) { return; }
  let place = g * params.length + position[row] - 1u;
  history[place * params.width + d] = x[(row + parents[row]) * params.width + d];
}
