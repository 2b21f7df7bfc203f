// A block of 32 `values` rounded to 0 .. 15, eight in a word, by the block's scale: the value of
// largest magnitude, with its sign, becomes 0, which means -8. Bytes of a word: elements 0 .. 3 in
// the low halves, 4 .. 7 in the high ones. Eight blocks are a unit: eight f16 scales (four words),
// then the blocks.
//
// Provides: UNIT_WORDS, kept, write_block
// Needs:    result, values

const UNIT_WORDS: u32 = 36u;

// What is kept of the value of largest magnitude.
fn kept(largest: f32) -> f32 { return largest; }

fn write_block(block: u32, scale: f32) {
  let factor = select(0.0, -8.0 / scale, scale != 0.0);
  let at = block / 8u * UNIT_WORDS + 4u + block % 8u * 4u;
  for (var i = 0u; i < 4u; i++) {
    var word = 0u;
    for (var j = 0u; j < 8u; j++) {
      let level = u32(clamp(round(values[8u * i + j] * factor) + 8.0, 0.0, 15.0));
      word |= level << (8u * (j % 4u) + 4u * (j / 4u));
    }
    result[at + i] = word;
  }
}
