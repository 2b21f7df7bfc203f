// BF16 elements of a checkpoint, two in a word: the upper half of an f32.
//
// Provides: source
// Needs:    raw

fn source(i: u32) -> f32 { return bitcast<f32>((raw[i / 2u] >> (16u * (i % 2u))) << 16u); }
