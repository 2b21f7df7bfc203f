// The largest logit of a row and its first index: of the chunks the first with the highest rank
// (maxima_and_counts.wgsl), then within that chunk.
//
// Provides: best_rank, best_index, find_best
// Needs:    CHUNK, WORKGROUP, chunks_of, maxima_and_counts, own, rank_high,
//           params.maxima_and_counts_width

var<workgroup> best_rank: array<u32, WORKGROUP>;
var<workgroup> best_index: array<u32, WORKGROUP>;

// The highest rank, and the first index that has it: into best_rank[0] and best_index[0].
fn first_of_highest(rank: u32, index: u32, thread: u32) {
  best_rank[thread] = rank;
  best_index[thread] = index;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
    if (thread < half) {
      let other = thread + half;
      let smaller = best_index[other] < best_index[thread];
      if (best_rank[other] > best_rank[thread]
          || (best_rank[other] == best_rank[thread] && smaller)) {
        best_rank[thread] = best_rank[other];
        best_index[thread] = best_index[other];
      }
    }
    workgroupBarrier();
  }
}

// Rank and index of the largest logit: into best_rank[0] and best_index[0].
fn find_best(row: u32, thread: u32) {
  let chunks = chunks_of(own.candidates);
  var highest_rank = 0u;
  var index = chunks;
  for (var i = thread; i < chunks; i += WORKGROUP) {
    let maximum = maxima_and_counts[row * params.maxima_and_counts_width + i];
    if (maximum > highest_rank) { highest_rank = maximum; index = i; }
  }
  first_of_highest(highest_rank, index, thread);
  let begin = best_index[0] * CHUNK;
  highest_rank = 0u;
  index = own.candidates;
  workgroupBarrier(); // all threads have read
  for (var i = begin + thread; i < min(begin + CHUNK, own.candidates); i += WORKGROUP) {
    let high = rank_high(i);
    if (high > highest_rank) { highest_rank = high; index = i; }
  }
  first_of_highest(highest_rank, index, thread);
}
