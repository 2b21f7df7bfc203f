// F32 elements of a checkpoint.
//
// Provides: source
// Needs:    raw

fn source(i: u32) -> f32 { return bitcast<f32>(raw[i]); }
