// A short list of tokens in workgroup memory, in any order, each of which can be compared with each
// other.
//
// Provides: LISTED, listed, list_index, list_rank, list_mass, begin_list, list_token, end_list,
//           listed_before
// Needs:    WORKGROUP, found, mass, rank_high

const LISTED: u32 = 512u;

var<workgroup> listed: atomic<u32>;
var<workgroup> list_index: array<u32, LISTED>;
var<workgroup> list_rank: array<u32, LISTED>;
var<workgroup> list_mass: array<u32, LISTED>;

// Every thread must call.
fn begin_list(thread: u32) {
  if (thread == 0u) { atomicStore(&listed, 0u); }
  workgroupBarrier();
}

fn list_token(i: u32) {
  let place = atomicAdd(&listed, 1u);
  if (place < LISTED) { list_index[place] = i; }
}

// The number of tokens that were to be listed; ranks and masses, if they were. Every thread must
// call.
fn end_list(thread: u32) -> u32 {
  workgroupBarrier();
  if (thread == 0u) { found = vec4<u32>(atomicLoad(&listed)); }
  let count = workgroupUniformLoad(&found).x;
  for (var n = thread; n < min(count, LISTED); n += WORKGROUP) {
    list_rank[n] = rank_high(list_index[n]);
    list_mass[n] = mass(list_index[n]);
  }
  workgroupBarrier();
  return count;
}

// How many listed tokens rank before the n-th, and their mass.
fn listed_before(n: u32, count: u32) -> vec2<u32> {
  var before = vec2<u32>(0u);
  for (var m = 0u; m < count; m++) {
    if (list_rank[m] > list_rank[n]
        || (list_rank[m] == list_rank[n] && list_index[m] < list_index[n])) {
      before += vec2<u32>(1u, list_mass[m]);
    }
  }
  return before;
}
