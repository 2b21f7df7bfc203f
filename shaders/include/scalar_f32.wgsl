// Element type of a kernel: 32-bit floating point.
//
// Provides: Scalar
// Needs:    nothing

alias Scalar = f32;
