// Floats as words in the same order, so that integers can compare and gather them. 0 ranks below
// every number; what is not finite above them all, whatever its sign, so that it is never lost.

const NOT_FINITE: u32 = 0xffffffffu;

fn rank(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) { return NOT_FINITE; }
  if (bits == 0x80000000u) { return bits; } // -0 equals 0
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
