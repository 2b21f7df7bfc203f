// Weights stored as packed f16, eight at a time (one 16-byte load): group i holds elements 8i ..
// 8i+7. unpack2x16float needs no shader-f16 feature.
//
// Provides: weights, weights8
// Needs:    nothing

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn weights8(i: u32) -> mat2x4<f32> {
  let w = weights[i];
  return mat2x4<f32>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
                     vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
}
