// Effect of a LayerNorm that is folded into a linear layer on an output's sum (input_plain.wgsl).
//
// Provides: apply_norm
// Needs:    NORM, bias, mean_and_inverse, params.first_out_feature, params.total_out_features

// The product with the normalised token, from that with x - shift and the token's moments.
fn apply_norm(n: u32, sum: f32, moments: vec2<f32>) -> f32 {
  if (!NORM) { return sum; }
  let norm = mean_and_inverse(moments);
  let folded = params.total_out_features + params.first_out_feature + n;
  return (sum - norm.x * bias[folded]) * norm.y;
}
