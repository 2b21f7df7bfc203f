// A cut by top-k or top-p over all candidates: a radix search for the rank at which a budget of
// tokens, or of mass, is exceeded. Eight bits of the rank at a time, ties going on to the index.
//
// Provides: bin_mass, bin_count, narrow
// Needs:    WORKGROUP, floor_high, floor_low, found, kept, mass, rank_high, running_sum,
//           share_is_known, params.candidates

var<workgroup> bin_mass: array<atomic<u32>, 256>;
var<workgroup> bin_count: array<atomic<u32>, 256>;

// Raise the floor (sample_mass.wgsl) so that a kept token has at most `budget` ranked before it:
// counted as tokens, or as mass. Every thread must call.
fn narrow(by_mass: bool, budget: u32, thread: u32) {
  var prefix_high = 0u;
  var prefix_low = 0u;
  var spent = 0u; // mass ranked before every token that shares the prefix
  for (var digit = 0u; digit < 8u; digit++) {
    let shift = 24u - 8u * (digit % 4u);
    for (var i = thread; i < 256u; i += WORKGROUP) {
      atomicStore(&bin_mass[i], 0u);
      atomicStore(&bin_count[i], 0u);
    }
    workgroupBarrier();
    for (var i = thread; i < params.candidates; i += WORKGROUP) {
      let high = rank_high(i);
      if (!kept(high, i)) { continue; }
      var bin = (high >> shift) & 255u;
      // Compare the digits found so far; a shift by 32 is not defined, hence the two steps.
      var same = ((high >> shift) >> 8u) == ((prefix_high >> shift) >> 8u);
      if (digit >= 4u) {
        bin = (~i >> shift) & 255u;
        same = high == prefix_high && ((~i >> shift) >> 8u) == ((prefix_low >> shift) >> 8u);
      }
      if (same) {
        atomicAdd(&bin_count[bin], 1u);
        atomicAdd(&bin_mass[bin], select(1u, mass(i), by_mass));
      }
    }
    workgroupBarrier();
    // Each thread has some bins; the first thread has the highest.
    let share = 256u / WORKGROUP;
    let top = 255u - thread * share;
    var own = 0u;
    for (var b = 0u; b < share; b++) { own += atomicLoad(&bin_mass[top - b]); }
    if (thread == 0u) { found = vec4<u32>(0u); }
    var before = spent + running_sum(own, thread) - own;
    for (var b = 0u; b < share; b++) {
      let here = atomicLoad(&bin_mass[top - b]);
      // In one thread: bin, mass ranked before it, tokens in it, 1 if there is a cut.
      if (before <= budget && before + here > budget) {
        found = vec4<u32>(top - b, before, atomicLoad(&bin_count[top - b]), 1u);
      }
      before += here;
    }
    let cut = workgroupUniformLoad(&found);
    if (cut.w == 0u) { return; } // the budget is never exceeded: every token stays
    spent = cut.y;
    if (digit < 4u) {
      prefix_high |= cut.x << shift;
    } else {
      prefix_low |= cut.x << shift;
    }
    if (cut.z == 1u) { break; } // a single token: lower digits cannot divide it
  }
  // A prefix found early may be below a floor found before: a floor only rises.
  if (prefix_high > floor_high || (prefix_high == floor_high && prefix_low > floor_low)) {
    floor_high = prefix_high;
    floor_low = prefix_low;
    share_is_known = false;
  }
}
