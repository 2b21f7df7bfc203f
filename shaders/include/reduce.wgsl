// Sum and maximum over the threads of a workgroup, in two steps: 16 threads gather the values of
// all, then every thread those of the 16. WORKGROUP is a multiple of 16; every thread must call.
//
// Provides: workgroup_sum, workgroup_max
// Needs:    WORKGROUP
//
// This takes two barriers, where halving takes one for each power of two. Subgroup operations would
// save none: WGSL specifies neither which threads form a subgroup nor how many, so that their sums
// would have to be gathered from workgroup memory, too.

const GATHERING: u32 = 16u;

var<workgroup> reduce_scratch: array<f32, WORKGROUP>;
// The next call writes this only after its first barrier.
var<workgroup> reduce_gathered: array<f32, GATHERING>;

fn workgroup_sum(value: f32, thread: u32) -> f32 {
  reduce_scratch[thread] = value;
  workgroupBarrier();
  if (thread < GATHERING) {
    var some = value;
    for (var i = thread + GATHERING; i < WORKGROUP; i += GATHERING) { some += reduce_scratch[i]; }
    reduce_gathered[thread] = some;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < GATHERING; i++) { total += reduce_gathered[i]; }
  return total;
}

fn workgroup_max(value: f32, thread: u32) -> f32 {
  reduce_scratch[thread] = value;
  workgroupBarrier();
  if (thread < GATHERING) {
    var some = value;
    for (var i = thread + GATHERING; i < WORKGROUP; i += GATHERING) {
      some = max(some, reduce_scratch[i]);
    }
    reduce_gathered[thread] = some;
  }
  workgroupBarrier();
  var largest = reduce_gathered[0];
  for (var i = 1u; i < GATHERING; i++) { largest = max(largest, reduce_gathered[i]); }
  return largest;
}
