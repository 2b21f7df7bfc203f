// Reads of a KV cache in f16, packed in pairs, eight elements at a time.
//
// Provides: keys, values, key8, value8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;

fn unpack8(w: vec4<u32>) -> mat2x4<f32> {
  return mat2x4<f32>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
                     vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
fn key8(i: u32) -> mat2x4<f32> { return unpack8(keys[i]); }
fn value8(i: u32) -> mat2x4<f32> { return unpack8(values[i]); }
