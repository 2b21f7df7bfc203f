// A draw among all kept tokens: the first, in index order, at which the running mass of kept tokens
// exceeds random / 2^32 of their total mass.
//
// Provides: draw
// Needs:    GATHERING, WORKGROUP, found, kept, mass, multiply_high, rank_high, running,
//           running_sum, running_total, sampled_token, params.candidates
//
// Threads form 16 teams, each of which reads neighbouring logits and sums a part of the vocabulary;
// the part that has the token is divided in turn, until each token has a thread.

// A kept token with probability proportional to its mass, into `sampled_token`. Every thread must
// call.
fn draw(random: u32, thread: u32) {
  var begin = 0u;
  var size = params.candidates;
  var goal = 0u; // less the mass before `begin`
  loop {
    let last = size <= WORKGROUP;
    let team = select(WORKGROUP / GATHERING, 1u, last);
    let part = (size + WORKGROUP - 1u) / WORKGROUP * team;
    let leader = thread / team * team;
    let start = begin + thread / team * part;
    let end = min(start + part, begin + size);
    var own = 0u;
    for (var i = start + thread - leader; i < end; i += team) {
      if (kept(rank_high(i), i)) { own += mass(i); }
    }
    if (thread == 0u) { found = vec4<u32>(0u); }
    let sum = running_sum(own, thread);
    if (size == params.candidates) { goal = multiply_high(random, running_total()); }
    if (sum - own <= goal && goal < sum) { // in one thread
      var before = sum - own;
      for (var i = leader; i < thread; i++) { before -= running[i]; }
      found = vec4<u32>(start, end - start, before, 0u);
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
