// A cut by top-k, top-p or typical_p over all candidates: a radix search for the rank at which a
// budget of tokens, or of mass, is exceeded. Eight bits of the rank at a time, ties going on to the
// index; of typical_p the rank is that of a small deviation, and ties are kept.
//
// Provides: BY_COUNT, BY_MASS, BY_DEVIATION, narrow
// Needs:    WORKGROUP, bin_count, bin_exceeding, bin_mass, clear_bins, deviation, deviations,
//           floor_high, floor_low, kept, mass, own, rank_high, share_is_known

const BY_COUNT: u32 = 0u;
const BY_MASS: u32 = 1u;
const BY_DEVIATION: u32 = 2u; // and mass

// Raise the floor (sample_mass.wgsl), or lower `deviations`, so that a kept token has at most
// `budget` ranked before it: counted as tokens, or as mass. Every thread must call.
fn narrow(by: u32, budget: u32, thread: u32) {
  var prefix_high = 0u;
  var prefix_low = 0u;
  var spent = 0u; // what is ranked before every token that shares the prefix
  let digits = select(8u, 4u, by == BY_DEVIATION);
  for (var digit = 0u; digit < digits; digit++) {
    let shift = 24u - 8u * (digit % 4u);
    clear_bins(thread);
    for (var i = thread; i < own.candidates; i += WORKGROUP) {
      var high = rank_high(i);
      if (!kept(high, i)) { continue; }
      if (by == BY_DEVIATION) { high = ~bitcast<u32>(deviation(i)); }
      var bin = (high >> shift) & 255u;
      // Compare the digits found so far; a shift by 32 is not defined, hence the two steps.
      var same = ((high >> shift) >> 8u) == ((prefix_high >> shift) >> 8u);
      if (digit >= 4u) {
        bin = (~i >> shift) & 255u;
        same = high == prefix_high && ((~i >> shift) >> 8u) == ((prefix_low >> shift) >> 8u);
      }
      if (same) { // the highest rank is in the first bin
        atomicAdd(&bin_count[255u - bin], 1u);
        atomicAdd(&bin_mass[255u - bin], select(mass(i), 1u, by == BY_COUNT));
      }
    }
    let cut = bin_exceeding(budget, spent, thread);
    if (cut.z == 0u) { return; } // the budget is never exceeded: every token stays
    spent = cut.y;
    if (digit < 4u) {
      prefix_high |= (255u - cut.x) << shift;
    } else {
      prefix_low |= (255u - cut.x) << shift;
    }
    if (cut.w == 1u) { break; } // a single token: lower digits cannot divide it
  }
  if (by == BY_DEVIATION) {
    deviations = bitcast<f32>(~prefix_high);
    share_is_known = false;
    return;
  }
  // A prefix found early may be below a floor found before: a floor only rises.
  if (prefix_high > floor_high || (prefix_high == floor_high && prefix_low > floor_low)) {
    floor_high = prefix_high;
    floor_low = prefix_low;
    share_is_known = false;
  }
}
