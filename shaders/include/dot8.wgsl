// Dot product of two groups of eight elements.
//
// Provides: dot8
// Needs:    nothing

fn dot8(a: mat2x4<f32>, b: mat2x4<f32>) -> f32 { return dot(a[0], b[0]) + dot(a[1], b[1]); }
