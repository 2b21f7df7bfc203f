// Sum and maximum over the threads of a workgroup, by halving in workgroup memory.
// The caller declares `override WORKGROUP: u32` (a power of two); every thread must call.

var<workgroup> reduce_scratch: array<f32, WORKGROUP>;

fn workgroup_sum(value: f32, thread: u32) -> f32 {
  reduce_scratch[thread] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
    if (thread < half) { reduce_scratch[thread] += reduce_scratch[thread + half]; }
    workgroupBarrier();
  }
  let total = reduce_scratch[0];
  workgroupBarrier(); // the scratch may be written again only after everybody has read
  return total;
}

fn workgroup_max(value: f32, thread: u32) -> f32 {
  reduce_scratch[thread] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
    if (thread < half) {
      reduce_scratch[thread] = max(reduce_scratch[thread], reduce_scratch[thread + half]);
    }
    workgroupBarrier();
  }
  let largest = reduce_scratch[0];
  workgroupBarrier();
  return largest;
}
