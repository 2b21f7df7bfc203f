// Sums over 256 bins of tokens, in workgroup memory: of what counts for a cut or a draw, and of
// tokens.
//
// Provides: BINS, bin_mass, bin_count, clear_bins, bin_exceeding
// Needs:    WORKGROUP, found, running_sum

const BINS: u32 = 256u; // one for each value of eight bits: sample_narrow.wgsl

var<workgroup> bin_mass: array<atomic<u32>, BINS>;
var<workgroup> bin_count: array<atomic<u32>, BINS>;

// Every thread must call.
fn clear_bins(thread: u32) {
  for (var i = thread; i < BINS; i += WORKGROUP) {
    atomicStore(&bin_mass[i], 0u);
    atomicStore(&bin_count[i], 0u);
  }
  workgroupBarrier();
}

// The bin at which the running sum of bin_mass, from `before` on, exceeds `budget`; the sum before
// it; 1; its bin_count. Zeros without one. Every thread must call, after all have added.
fn bin_exceeding(budget: u32, before: u32, thread: u32) -> vec4<u32> {
  workgroupBarrier();
  let share = BINS / WORKGROUP;
  var own_sum = 0u;
  for (var i = thread * share; i < (thread + 1u) * share; i++) {
    own_sum += atomicLoad(&bin_mass[i]);
  }
  if (thread == 0u) { found = vec4<u32>(0u); }
  var sum = before + running_sum(own_sum, thread) - own_sum;
  for (var i = thread * share; i < (thread + 1u) * share; i++) {
    let next = sum + atomicLoad(&bin_mass[i]);
    if (sum <= budget && budget < next) { // in one thread
      found = vec4<u32>(i, sum, 1u, atomicLoad(&bin_count[i]));
    }
    sum = next;
  }
  return workgroupUniformLoad(&found);
}
