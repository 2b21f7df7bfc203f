// A checkpoint's F16 elements, two in a word.
fn source(i: u32) -> f32 { return unpack2x16float(raw[i / 2u])[i % 2u]; }
