// The k largest elements along one axis and their indices, in order; one workgroup a row.
//
// Formula:  the order is: larger value first (NaN is the largest), then lower index. Round j finds
//           the first element of the row that comes after round j - 1's; k = 1 is argmax. A
//           dispatch does the rounds from `first` up to `end`.
// Bindings: x [rows / inner, columns, inner] f32: the elements of a row are `inner` apart
//           · values f32, indices i32 [rows, k]
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   time grows with k * columns

override WORKGROUP: u32 = 128u;

//!include "top_k_bindings.wgsl"

const NONE: u32 = 0xffffffffu;

var<workgroup> best_rank: array<u32, WORKGROUP>;
var<workgroup> best_index: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
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
    var index = NONE;
    for (var c = thread; c < params.columns; c += WORKGROUP) {
      let candidate = order(x[start + c * params.inner]);
      let open = j == 0u || precedes(last_rank, last, candidate, c);
      if (open && (index == NONE || candidate > rank)) {
        rank = candidate;
        index = c;
      }
    }
    best_rank[thread] = rank;
    best_index[thread] = index;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
      if (thread < half) {
        let r = best_rank[thread + half];
        let i = best_index[thread + half];
        let mine = best_index[thread];
        if (i != NONE && (mine == NONE || precedes(r, i, best_rank[thread], mine))) {
          best_rank[thread] = r;
          best_index[thread] = i;
        }
      }
      workgroupBarrier();
    }
    last_rank = best_rank[0];
    last = best_index[0];
    workgroupBarrier(); // all threads have read before the next round writes
    if (thread == 0u) {
      values[row * params.k + j] = x[start + last * params.inner];
      indices[row * params.k + j] = i32(last);
    }
  }
}
