// Element type of a kernel: 32-bit signed integer (overflow wraps).
//
// Provides: Scalar
// Needs:    nothing

alias Scalar = i32;
