// Rows of an array by their indices.
//
// Formula:  result[o, j, d] = x[o, indices[j], d], or `missing` if indices[j] >= rows
//           (a negative i32 reads as a large u32, so it is missing, too)
// Bindings: x [outer, rows, inner] · indices [picks] u32 or i32 · result [outer, picks, inner];
//           x and result: 32-bit elements of any type (bits are copied)
// Threads:  thread -> one element of the result
// Limits:   none

struct Params { count: u32, rows: u32, picks: u32, inner: u32, missing: u32, }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let d = i % params.inner;
  let pick = i / params.inner;
  let row = indices[pick % params.picks];
  var value = params.missing;
  if (row < params.rows) {
    value = x[((pick / params.picks) * params.rows + row) * params.inner + d];
  }
  result[i] = value;
}
