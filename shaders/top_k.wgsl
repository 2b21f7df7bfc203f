// The k largest elements along one axis and their indices, in order; one workgroup a row.
//
// Formula:  the order is: larger value first (NaN is the largest), then lower index. Round j finds
//           the first element of the row that comes after round j - 1's; k = 1 is argmax. A
//           dispatch does the rounds from `first` up to `end`.
// Bindings: x [rows / inner, columns, inner] f32: the elements of a row are `inner` apart
//           · values f32, indices i32 [rows, k]
// Threads:  WORKGROUP threads share one row; workgroup (x, y) -> row y * workgroups.x + x
// Limits:   none
//
// Thread t has the columns c with c % WORKGROUP = t, and knows the first of them that is left. A
// round takes the first of these, and all threads look for the next one of its thread.

override WORKGROUP: u32 = 128u;

//!include "top_k_bindings.wgsl"

const NONE: u32 = 0xffffffffu;

var<workgroup> best_rank: array<u32, WORKGROUP>;
var<workgroup> best_index: array<u32, WORKGROUP>;

// Makes (best_rank[0], best_index[0]) the first of all threads' elements; all threads must call.
fn find_first(rank: u32, index: u32, thread: u32) {
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
}

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
  var own_rank = 0u;
  var own_index = NONE;
  for (var c = thread; c < params.columns; c += WORKGROUP) {
    let candidate = order(x[start + c * params.inner]);
    let open = params.first == 0u || precedes(last_rank, last, candidate, c);
    if (open && (own_index == NONE || candidate > own_rank)) {
      own_rank = candidate;
      own_index = c;
    }
  }
  for (var j = params.first; j < params.end; j++) {
    find_first(own_rank, own_index, thread);
    last_rank = best_rank[0];
    last = best_index[0];
    workgroupBarrier(); // all threads have read before they write again
    if (thread == 0u) {
      values[row * params.k + j] = x[start + last * params.inner];
      indices[row * params.k + j] = i32(last);
    }
    if (j + 1u < params.end) {
      let owner = last % WORKGROUP;
      var rank = 0u;
      var index = NONE;
      for (var c = owner + thread * WORKGROUP; c < params.columns; c += WORKGROUP * WORKGROUP) {
        let candidate = order(x[start + c * params.inner]);
        let open = precedes(last_rank, last, candidate, c);
        if (open && (index == NONE || candidate > rank)) {
          rank = candidate;
          index = c;
        }
      }
      find_first(rank, index, thread);
      if (thread == owner) {
        own_rank = best_rank[0];
        own_index = best_index[0];
      }
      workgroupBarrier();
    }
  }
}
