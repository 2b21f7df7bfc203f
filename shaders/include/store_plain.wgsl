// Output of a linear layer: bias, activation, residual, row-major result [tokens,
// total_out_features]. The weights may be one of several parts: n counts outputs from
// first_out_feature on.
//
// Provides: HAS_BIAS, HAS_RESIDUAL, bias, residual, result, params, store_one, store
// Needs:    nothing

//!include "activation.wgsl"

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

struct Params {
  tokens: u32, out_features: u32, in_features8: u32, // in_features / 8
  first_out_feature: u32, total_out_features: u32,
  norm_features: u32, epsilon: f32, // for input_plain.wgsl
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

fn store_one(m: u32, n: u32, sum: f32) {
  let feature = params.first_out_feature + n;
  let i = m * params.total_out_features + feature;
  var value = sum;
  if (HAS_BIAS) { value += bias[feature]; }
  value = activate(value);
  if (HAS_RESIDUAL) { value += residual[i]; }
  result[i] = value;
}

// Two neighbouring outputs, the first of them even; the second may be past the end.
fn store(m: u32, n: u32, sum: vec2<f32>) {
  store_one(m, n, sum.x);
  if (n + 1u < params.out_features) { store_one(m, n + 1u, sum.y); }
}
