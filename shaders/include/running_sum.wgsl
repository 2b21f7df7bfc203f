// Running sum over the threads of a workgroup, in two steps, as the sums of reduce.wgsl. WORKGROUP
// is a multiple of 16; every thread must call, and pass a barrier before the next call.
//
// Provides: running, running_sum, running_total
// Needs:    GATHERING, WORKGROUP

var<workgroup> running: array<u32, WORKGROUP>;
var<workgroup> running_blocks: array<u32, GATHERING>;

// The sum of the values of this thread and of those before it; `running` has the values.
fn running_sum(value: u32, thread: u32) -> u32 {
  let width = WORKGROUP / GATHERING;
  running[thread] = value;
  workgroupBarrier();
  if (thread < GATHERING) {
    var some = 0u;
    for (var i = thread * width; i < (thread + 1u) * width; i++) { some += running[i]; }
    running_blocks[thread] = some;
  }
  workgroupBarrier();
  let block = thread / width;
  var sum = 0u;
  for (var i = 0u; i < block; i++) { sum += running_blocks[i]; }
  for (var i = block * width; i <= thread; i++) { sum += running[i]; }
  return sum;
}

// The sum of the values of all threads, after running_sum.
fn running_total() -> u32 {
  var total = 0u;
  for (var i = 0u; i < GATHERING; i++) { total += running_blocks[i]; }
  return total;
}
