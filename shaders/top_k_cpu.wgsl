// The k largest elements along one axis, in order, for CPU adapters: one thread a row, no barriers.
//
// Formula:  as top_k.wgsl
// Bindings: as top_k.wgsl
// Threads:  thread -> row (y * workgroups.x + x) * 8 + local index
// Limits:   as top_k.wgsl; columns <= 128 params.chunk
//
// The thread knows the first element that is left in each chunk of `chunk` columns. A round takes
// the first of these, and looks for the next one of its chunk.

//!include "top_k_bindings.wgsl"

const CHUNKS: u32 = 128u; // CHUNKS of reductions.py
const NONE: u32 = 0xffffffffu; // no element is left: the lowest in order

var<private> start: u32; // index of the row's first element
var<private> best_rank: array<u32, CHUNKS>;
var<private> best_index: array<u32, CHUNKS>;

// Finds the first element of a chunk after `last`; after none if `last` is NONE.
fn find_first(chunk: u32, last_rank: u32, last: u32) {
  var rank = 0u;
  var index = NONE;
  let end = min((chunk + 1u) * params.chunk, params.columns);
  for (var c = chunk * params.chunk; c < end; c++) {
    let candidate = order(x[start + c * params.inner]);
    let open = last == NONE || precedes(last_rank, last, candidate, c);
    if (open && (index == NONE || candidate > rank)) {
      rank = candidate;
      index = c;
    }
  }
  best_rank[chunk] = rank;
  best_index[chunk] = index;
}

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (group.y * groups.x + group.x) * 8u + thread;
  if (row >= params.rows) { return; }
  start = row / params.inner * params.inner * params.columns + row % params.inner;

  var last_rank = 0u;
  var last = NONE;
  if (params.first > 0u) { // continue after an earlier dispatch
    last = u32(indices[row * params.k + params.first - 1u]);
    last_rank = order(x[start + last * params.inner]);
  }
  let chunks = (params.columns + params.chunk - 1u) / params.chunk;
  for (var i = 0u; i < chunks; i++) { find_first(i, last_rank, last); }
  for (var j = params.first; j < params.end; j++) {
    last_rank = 0u;
    last = NONE;
    for (var i = 0u; i < chunks; i++) {
      if (best_index[i] != NONE && (last == NONE || best_rank[i] > last_rank)) {
        last_rank = best_rank[i];
        last = best_index[i];
      }
    }
    values[row * params.k + j] = x[start + last * params.inner];
    indices[row * params.k + j] = i32(last);
    if (j + 1u < params.end) { find_first(last / params.chunk, last_rank, last); }
  }
}
