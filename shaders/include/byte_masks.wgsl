// Bytes of a word as floats by masks, each times the power of 256 of its place: for adapters that
// emulate `dot4I8Packed`, and shifts by different numbers of bits, with many instructions.
//
// Provides: masked, bytes, signed_bytes, sum_of_places
// Needs:    nothing

// Bits of `word` at `masks` of up to 24 bits, as exact signed numbers.
fn masked(word: u32, masks: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word) & masks));
}

// Four int8, byte k times 256^k, of a word whose three lower ones are 128 too large.
fn bytes(word: u32) -> vec4<f32> {
  return masked(word, vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff000000u));
}

// Four int8, byte k times 256^k: only the last one's sign is that of the word.
fn signed_bytes(word: u32) -> vec4<f32> {
  return bytes(word ^ 0x00808080u) - vec4<f32>(128.0, 32768.0, 8388608.0, 0.0);
}

// Sum of products of two bytes each, both times 256^k.
fn sum_of_places(products: vec4<f32>) -> f32 {
  return dot(products, vec4<f32>(1.0, 0x1p-16, 0x1p-32, 0x1p-48));
}
