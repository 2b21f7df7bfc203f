// Reads of a KV cache in f32, eight elements at a time.
//
// Provides: keys, values, key8, value8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<f32>>;

fn key8(i: u32) -> mat2x4<f32> { return mat2x4<f32>(keys[2u * i], keys[2u * i + 1u]); }
fn value8(i: u32) -> mat2x4<f32> { return mat2x4<f32>(values[2u * i], values[2u * i + 1u]); }
