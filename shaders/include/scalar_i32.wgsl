// The element type of a kernel that serves several: 32-bit signed integer (overflow wraps).
alias Scalar = i32;
