// Rows of one layer of a KV cache, replaced in place by rows of the same group: beam search, where
// the rows of a group are the beams of a prompt.
//
// Formula:  cache[g, r, position] = cache[g, parents[g, r], position], for positions from
//           first[g, r] up to end[g, r] - 1; both are equal within a group
// Bindings: cache: one layer, in the layout of store_qkv.wgsl, in units of four words ·
//           parents [groups, rows] u32, below rows · first, end [groups, rows] u32
// Threads:  thread -> four words of each row of one group
// Limits:   at most MOST rows of a group

const MOST: u32 = 32u; // MAX_BEAMS in sampling_parameters.py

struct Params {
  groups: u32, rows: u32,
  allocated_rows: u32,    // of the buffer: at least groups * rows
  row_quads: u32,         // keys of a row, and as many values, in units of four words
  key_quads: u32,         // eight elements
  value_quads: u32,       // a head's elements of one position
  capacity: u32,
}

@group(0) @binding(0) var<storage, read_write> cache: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> parents: array<u32>;
@group(0) @binding(2) var<storage, read> first: array<u32>;
@group(0) @binding(3) var<storage, read> end: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  let quad = i % params.row_quads;
  let half = i / params.row_quads % 2u; // 0 keys, 1 values
  let rows = params.rows;
  let row = i / params.row_quads / 2u * rows; // the group's first row
  if (row >= params.groups * rows) { return; }
  let position = quad / select(params.key_quads, params.value_quads, half == 1u) % params.capacity;
  if (position < first[row] || position >= end[row]) { return; }
  let base = (half * params.allocated_rows + row) * params.row_quads + quad;
  var old: array<vec4<u32>, MOST>;
  for (var r = 0u; r < rows; r++) { old[r] = cache[base + r * params.row_quads]; }
  for (var r = 0u; r < rows; r++) {
    let parent = parents[row + r];
    if (parent != r) { cache[base + r * params.row_quads] = old[parent]; }
  }
}
