// The k largest elements along one axis, in order, for CPU adapters: one thread a row, no barriers.
//
// Formula:  as top_k.wgsl
// Bindings: as top_k.wgsl
// Threads:  thread -> row (y * workgroups.x + x) * 8 + local index
// Limits:   as top_k.wgsl

//!include "top_k_bindings.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (group.y * groups.x + group.x) * 8u + thread;
  if (row >= params.rows) { return; }
  let start = row / params.inner * params.inner * params.columns + row % params.inner;

  var last_rank = 0u;
  var last = 0u;
  if (params.first > 0u) { // continue after an earlier dispatch
    last = u32(indices[row * params.k + params.first - 1u]);
    last_rank = order(x[start + last * params.inner]);
  }
  for (var j = params.first; j < params.end; j++) {
    var rank = 0u;
    var index = 0xffffffffu; // none yet
    for (var c = 0u; c < params.columns; c++) {
      let candidate = order(x[start + c * params.inner]);
      let open = j == 0u || precedes(last_rank, last, candidate, c);
      if (open && (index == 0xffffffffu || candidate > rank)) {
        rank = candidate;
        index = c;
      }
    }
    last_rank = rank;
    last = index;
    values[row * params.k + j] = x[start + index * params.inner];
    indices[row * params.k + j] = i32(index);
  }
}
