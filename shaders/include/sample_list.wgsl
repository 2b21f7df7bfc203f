// A short list of tokens in workgroup memory, in any order, and cuts of it. Sums over bins of depth
// (the distance of a token's log-probability from the largest) show in which bin a cut is; only
// the tokens of that bin are compared with the others.
//
// Provides: LISTED, listed, list_index, list_rank, list_mass, begin_list, list_token, end_list,
//           cut_list
// Needs:    BINS, WORKGROUP, bin_exceeding, bin_mass, clear_bins, floor_high, floor_low, found,
//           log_mass, mass, rank_high

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

// The bin of the n-th token: equal parts of the depths from range.x to range.y, and what is beyond.
fn depth_bin(n: u32, range: vec2<f32>) -> u32 {
  let width = clamp(range.y - range.x, 1e-30, 32.0); // excluded tokens are far below
  let part = (-log_mass(list_index[n]) - range.x) / width;
  return u32(clamp(part * f32(BINS), 0.0, f32(BINS) - 1.0));
}

// What the n-th token counts for a cut.
fn weight(by_mass: bool, n: u32) -> u32 { return select(1u, list_mass[n], by_mass); }

// Raise the floor (sample_mass.wgsl) so that a kept token has at most `budget` ranked before it, of
// which `above` is not listed: counted as tokens, or as mass -> false if the list of `count` tokens
// does not exceed the budget, or rounding hid the place. `range`: depths of the list. Every thread
// must call.
fn cut_list(by_mass: bool, budget: u32, above: u32, range: vec2<f32>, count: u32,
            thread: u32) -> bool {
  clear_bins(thread);
  for (var n = thread; n < count; n += WORKGROUP) {
    atomicAdd(&bin_mass[depth_bin(n, range)], weight(by_mass, n));
  }
  let bin = bin_exceeding(budget, above, thread);
  if (thread == 0u) { found = vec4<u32>(0u); }
  workgroupBarrier();
  for (var n = thread; n < count; n += WORKGROUP) {
    if (bin.z == 0u || depth_bin(n, range) != bin.x) { continue; }
    var before = above;
    for (var m = 0u; m < count; m++) {
      if (list_rank[m] > list_rank[n]
          || (list_rank[m] == list_rank[n] && list_index[m] < list_index[n])) {
        before += weight(by_mass, m);
      }
    }
    if (before <= budget && budget < before + weight(by_mass, n)) { // in one thread
      found = vec4<u32>(list_rank[n], ~list_index[n], 1u, 0u);
    }
  }
  let cut = workgroupUniformLoad(&found);
  if (cut.x > floor_high || (cut.x == floor_high && cut.y > floor_low)) { // a floor only rises
    floor_high = cut.x;
    floor_low = cut.y;
  }
  return cut.z == 1u;
}
