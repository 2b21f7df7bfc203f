// Element type of a kernel: 32-bit unsigned integer (overflow wraps).
//
// Provides: Scalar
// Needs:    nothing

alias Scalar = u32;
