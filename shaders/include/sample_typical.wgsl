// Locally typical sampling (Meister et al. 2022): of the tokens kept so far, those whose
// information is closest to the entropy of their distribution, ties included, until their mass
// reaches typical_p of all kept mass. A radix search over the bits of their deviations.
//
// Provides: keep_typical
// Needs:    WORKGROUP, bin_mass, deviation, deviations, expected, found, kept, log_mass, mass, own,
//           rank_high, running_sum, running_total, share_is_known, workgroup_sum, params.candidates
//
// The entropy is minus the expected log p, so -log p differs from it as log p from its mean.

// Every thread must call.
fn keep_typical(thread: u32) {
  var sum = 0.0;
  var weighted = 0.0;
  for (var i = thread; i < params.candidates; i += WORKGROUP) {
    if (!kept(rank_high(i), i)) { continue; }
    let log_p = max(log_mass(i), -1e30); // 0 times infinity is not a number
    sum += exp(log_p);
    weighted += exp(log_p) * log_p;
  }
  let total = workgroup_sum(sum, thread);
  let mean = workgroup_sum(weighted, thread) / total;
  expected = mean;

  var prefix = 0u;
  var spent = 0u; // mass of smaller deviations than all that share the prefix
  var budget = 0u;
  for (var digit = 0u; digit < 4u; digit++) {
    let shift = 24u - 8u * digit;
    for (var i = thread; i < 256u; i += WORKGROUP) { atomicStore(&bin_mass[i], 0u); }
    workgroupBarrier();
    for (var i = thread; i < params.candidates; i += WORKGROUP) {
      if (!kept(rank_high(i), i)) { continue; }
      let bits = bitcast<u32>(deviation(i));
      // Compare the digits found so far; a shift by 32 is not defined, hence the two steps.
      if (((bits >> shift) >> 8u) == ((prefix >> shift) >> 8u)) {
        atomicAdd(&bin_mass[(bits >> shift) & 255u], mass(i));
      }
    }
    workgroupBarrier();
    // Each thread has some bins; the first thread has the lowest.
    let share = 256u / WORKGROUP;
    let lowest = thread * share;
    var in_bins = 0u;
    for (var b = 0u; b < share; b++) { in_bins += atomicLoad(&bin_mass[lowest + b]); }
    if (thread == 0u) { found = vec4<u32>(255u, spent, 0u, 0u); }
    var before = spent + running_sum(in_bins, thread) - in_bins;
    if (digit == 0u) {
      budget = running_total();
      budget = min(budget, u32(ceil(own.typical_p * f32(budget))));
    }
    for (var b = 0u; b < share; b++) {
      let here = atomicLoad(&bin_mass[lowest + b]);
      if (before < budget && before + here >= budget) { // in one thread: bin, mass before it
        found = vec4<u32>(lowest + b, before, 0u, 0u);
      }
      before += here;
    }
    let cut = workgroupUniformLoad(&found);
    prefix |= cut.x << shift;
    spent = cut.y;
  }
  deviations = bitcast<f32>(prefix);
  share_is_known = false;
}
