// Sum and maximum over the threads of a workgroup, in two steps: 16 threads gather what all have
// written, and everybody what those have. The caller declares `override WORKGROUP: u32` (a multiple
// of 16); every thread must call.
//
// Two barriers, where halving takes one for each power of two. Subgroup operations would save none:
// WGSL does not say which threads form a subgroup, nor how many, so that their sums, too, had to be
// gathered from workgroup memory.

const GATHERING: u32 = 16u;

var<workgroup> reduce_scratch: array<f32, WORKGROUP>;
var<workgroup> reduce_gathered: array<f32, GATHERING>; // written by a next call after its barrier only

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
