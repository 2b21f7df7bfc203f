// A draw among all kept tokens: the first, in index order, at which the running mass of kept tokens
// exceeds random / 2^32 of their total mass.
//
// Provides: draw
// Needs:    WORKGROUP, found, kept, mass, multiply_high, rank_high, running, running_sum,
//           running_total, sampled_token, share_is_known, share_mass, share_of
//
// Threads form 16 teams, each of which reads neighbouring logits and sums a part of the vocabulary;
// the part that has the token is divided in turn, until each token has a thread. The first sums are
// those of the threads' shares, where they are known.

// A kept token with probability proportional to its mass, into `sampled_token`. Every thread must
// call. `candidates`: of the row's uniform options, since barriers depend on it.
fn draw(random: u32, candidates: u32, thread: u32) {
  var begin = 0u;
  var size = candidates;
  var goal = 0u; // less the mass before `begin`
  loop {
    let last = size <= WORKGROUP;
    let share = share_of(begin, size, thread);
    var own_mass = 0u;
    if (share_is_known && size == candidates && !last) {
      own_mass = share_mass;
    } else {
      for (var i = share.begin; i < share.end; i += share.step) {
        if (kept(rank_high(i), i)) { own_mass += mass(i); }
      }
    }
    if (thread == 0u) { found = vec4<u32>(0u); }
    let sum = running_sum(own_mass, thread);
    let total = running_total();
    if (size == candidates) { goal = multiply_high(random, total); }
    goal = min(goal, max(total, 1u) - 1u); // a share's mass may be off by rounding
    if (sum - own_mass <= goal && goal < sum) { // in one thread
      let leader = thread - thread % share.step;
      var before = sum - own_mass;
      for (var i = leader; i < thread; i++) { before -= running[i]; }
      let start = share.begin - thread % share.step;
      found = vec4<u32>(start, share.end - start, before, 0u);
      if (last) { sampled_token = start; }
    }
    if (last) { break; }
    let next = workgroupUniformLoad(&found);
    if (next.y == 0u) { break; } // no mass: the token of the largest logit stays
    begin = next.x;
    size = next.y;
    goal -= next.z;
  }
}
