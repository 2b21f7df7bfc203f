// Floats as words in the same order, so that integer atomics can compare them. 0 ranks below every
// number; NaN and infinities of both signs rank above all, so that they are always found.
//
// Provides: NOT_FINITE, LOWEST, rank, unrank
// Needs:    nothing

const NOT_FINITE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.4e38; // an excluded token's logit: finite, and 0 after exp() when tempered

fn rank(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) { return NOT_FINITE; }
  if (bits == 0x80000000u) { return bits; } // -0 equals 0
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// The number of a rank other than 0 and NOT_FINITE.
fn unrank(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank & 0x7fffffffu, (rank >> 31u) == 1u));
}
