// Two neighbouring elements, rounded to f16 and packed into one word.
//
// Provides: write_pair
// Needs:    result

fn write_pair(pair: u32, a: f32, b: f32) { result[pair] = pack2x16float(vec2<f32>(a, b)); }
