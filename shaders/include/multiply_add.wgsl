// Four more terms for each of four sums, one multiply-add a term: `dot` and matrix products start
// from zero and need one more addition.
//
// Provides: multiply_add
// Needs:    nothing

fn multiply_add(sum: vec4<f32>, terms: mat4x4<f32>, factors: vec4<f32>) -> vec4<f32> {
  return sum + terms[0] * factors.x + terms[1] * factors.y + terms[2] * factors.z
             + terms[3] * factors.w;
}
