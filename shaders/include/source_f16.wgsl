// F16 elements of a checkpoint, two in a word.
//
// Provides: source
// Needs:    raw

fn source(i: u32) -> f32 { return unpack2x16float(raw[i / 2u])[i % 2u]; }
