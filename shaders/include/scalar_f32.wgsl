// The element type of a kernel that serves several: 32-bit floating point.
alias Scalar = f32;
