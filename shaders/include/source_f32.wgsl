// A checkpoint's F32 elements.
fn source(i: u32) -> f32 { return bitcast<f32>(raw[i]); }
