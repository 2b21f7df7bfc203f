// Locally typical sampling (Meister et al. 2022): of the tokens kept so far, those whose
// information is closest to the entropy of their distribution, ties included, until their mass
// reaches typical_p of all kept mass.
//
// Provides: typical_budget
// Needs:    WORKGROUP, expected, kept, log_mass, mass, own, rank_high, running_sum, running_total,
//           workgroup_sum
//
// The entropy is minus the expected log p, so -log p differs from it as log p from its mean.

// The mean into `expected` -> the most mass before a kept token, for narrow(BY_DEVIATION, ...) of
// sample_narrow.wgsl. Every thread must call.
fn typical_budget(thread: u32) -> u32 {
  var sum = 0.0;
  var weighted = 0.0;
  var own_mass = 0u;
  for (var i = thread; i < own.candidates; i += WORKGROUP) {
    if (!kept(rank_high(i), i)) { continue; }
    let log_p = log_mass(i);
    sum += exp(log_p);
    weighted += exp(log_p) * log_p;
    own_mass += mass(i);
  }
  let total = workgroup_sum(sum, thread);
  expected = workgroup_sum(weighted, thread) / total;
  _ = running_sum(own_mass, thread);
  let all = running_total();
  return max(min(all, u32(ceil(own.typical_p * f32(all)))), 1u) - 1u;
}
