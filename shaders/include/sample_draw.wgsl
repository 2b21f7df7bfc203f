// A draw among all kept tokens: the first, in index order, at which the running mass of kept tokens
// exceeds random / 2^32 of their total mass.
//
// Provides: draw
// Needs:    WORKGROUP, kept, mass, multiply_high, rank_high, sampled_token, params.candidates

var<workgroup> masses: array<u32, WORKGROUP>;

// A kept token with probability proportional to its mass, into `sampled_token`. Every thread must
// call.
fn draw(random: u32, thread: u32) {
  // A contiguous range for each thread, so that the running mass is in index order.
  let count = (params.candidates + WORKGROUP - 1u) / WORKGROUP;
  let begin = thread * count;
  let end = min(begin + count, params.candidates);
  var own = 0u;
  for (var i = begin; i < end; i++) {
    if (kept(rank_high(i), i)) { own += mass(i); }
  }
  masses[thread] = own;
  workgroupBarrier();
  var before = 0u;
  var total = 0u;
  for (var i = 0u; i < WORKGROUP; i++) {
    if (i < thread) { before += masses[i]; }
    total += masses[i];
  }
  let goal = multiply_high(random, total);
  if (own > 0u && before <= goal && goal < before + own) {
    for (var i = begin; i < end; i++) {
      if (!kept(rank_high(i), i)) { continue; }
      before += mass(i);
      if (goal < before) {
        sampled_token = i;
        break;
      }
    }
  }
}
