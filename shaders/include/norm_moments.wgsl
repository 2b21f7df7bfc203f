// Moments of a token (input_plain.wgsl) from those that the threads of a workgroup summed up.
//
// Provides: moments_of_all
// Needs:    THREADS

var<workgroup> gathered: array<vec2<f32>, THREADS>;

// The sum of all threads' `own`; every thread must call.
fn moments_of_all(own: vec2<f32>, thread: u32) -> vec2<f32> {
  gathered[thread] = own;
  workgroupBarrier();
  var all = vec2<f32>(0.0);
  for (var i = 0u; i < THREADS; i++) { all += gathered[i]; }
  return all;
}
