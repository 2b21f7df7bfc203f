// Two neighbouring elements, written as two words.
//
// Provides: write_pair
// Needs:    result

fn write_pair(pair: u32, a: f32, b: f32) {
  result[2u * pair] = bitcast<u32>(a);
  result[2u * pair + 1u] = bitcast<u32>(b);
}
