// A block of 32 `values` rounded to int8, four in a word, by the block's scale (its largest
// magnitude). Eight blocks are a unit: eight f16 scales (four words), then the blocks.
//
// Provides: UNIT_WORDS, kept, write_block
// Needs:    result, values

const UNIT_WORDS: u32 = 68u;

// What is kept of the value of largest magnitude.
fn kept(largest: f32) -> f32 { return abs(largest); }

fn write_block(block: u32, scale: f32) {
  let factor = select(0.0, 127.0 / scale, scale != 0.0);
  let at = block / 8u * UNIT_WORDS + 4u + block % 8u * 8u;
  for (var i = 0u; i < 8u; i++) {
    let four = vec4<f32>(values[4u * i], values[4u * i + 1u], values[4u * i + 2u],
                         values[4u * i + 3u]);
    result[at + i] = pack4xI8(vec4<i32>(clamp(round(four * factor), vec4<f32>(-127.0),
                                              vec4<f32>(127.0))));
  }
}
